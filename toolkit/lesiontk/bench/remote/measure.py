"""The measurement of a bundle on another machine, which keeps nothing of it."""

from __future__ import annotations

import io
import re
import shlex
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TypeVar

from lesiontk.bench.remote.transport import Completed, Transport, UnreachableError
from lesiontk.errors import DataError, MissingRequirementError

T = TypeVar("T")
SUPERVISOR = "supervise.py"
LEASE_S = 600.0
"""Seconds after which a device deletes what nobody asks for."""
PATIENCE_S = 120.0
"""Seconds for which a lost connection is tried again."""
OLDEST = (3, 8)
"""The oldest Python that bundles run on."""
BASES = "/data/local/tmp /tmp"
"""Folders for temporary files: Android's, then those of Linux."""
MISSING = 3
"""The runner's exit code for a missing requirement."""


@dataclass(frozen=True, slots=True)
class RemoteMachine:
    """A device's processor architecture (``uname -m``) and its Python."""

    architecture: str
    python: tuple[int, int]


def examine(transport: Transport) -> RemoteMachine:
    """Return the device's architecture and Python. Raises `MissingRequirementError` without it."""
    done = transport.run(
        "uname -m; command -v python3 >/dev/null || exit 3; "
        "python3 -c 'import sys; print(\"%d %d\" % sys.version_info[:2])'"
    )
    words = done.out.decode("utf-8", "replace").split()
    if done.code or len(words) != 3 or not all(re.fullmatch(r"\d+", word) for word in words[1:]):
        raise MissingRequirementError(
            f"{transport.name} has no python3 that runs{_because(done)}; a bundle needs Python "
            "3.8 or later there."
        )
    python = (int(words[1]), int(words[2]))
    if python < OLDEST:
        raise MissingRequirementError(
            f"{transport.name} has Python {python[0]}.{python[1]}; a bundle needs 3.8 or later."
        )
    return RemoteMachine(words[0], python)


def measure(
    transport: Transport,
    bundle: Path,
    options: Sequence[str] = (),
    *,
    install: bool = False,
    lease_s: float = LEASE_S,
    patience_s: float = PATIENCE_S,
    on_wait: Callable[[], None] = lambda: None,
) -> bytes:
    """Return what ``run.py bench --json`` of a bundle's folder prints on the device.

    The measurement goes on while the connection is lost; it is tried again for `patience_s`
    seconds. With `install`, the bundle's requirements are installed into an environment beside it.
    Everything is in one temporary folder that is deleted at the end, by the device itself if nobody
    asks for it for `lease_s` seconds. `on_wait` is called while waiting.

    Raises `MissingRequirementError` for what the device lacks, `DataError` for a runner that fails,
    `UnreachableError` for a connection that stays lost.
    """
    retry = _Retry(patience_s)
    with _temporary_folder(transport, retry) as folder:
        retry(lambda: transport.unpack(_pack(bundle), folder))
        python = _prepare(transport, folder, install=install)
        words = [python, "run.py", "bench", "--json", *options]
        start = ["python3", f"{folder}/{SUPERVISOR}", folder, str(lease_s), *words]
        line = f"touch {_in(folder, 'lease')} && test -e {_in(folder, 'pid')} || "
        retry(lambda: transport.run(line + shlex.join(start)))
        code = _wait(transport, folder, retry, on_wait)
        out = retry(lambda: transport.run(f"cat {_in(folder, 'out')}")).out
        err = retry(lambda: transport.run(f"cat {_in(folder, 'err')}")).out
    text = err.decode("utf-8", "replace").strip()
    if code == MISSING:
        raise MissingRequirementError(
            f"{transport.name}: {text or 'a requirement is missing'}. Install it there, or use "
            "--install, which installs the bundle's pinned requirements for the measurement alone."
        )
    if code not in (0, 1):
        raise DataError(f"{transport.name}: the bundle's runner ended with {code}: {text}")
    return out


def _pack(bundle: Path) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        archive.add(bundle, arcname="bundle")
        content = resources.files(__package__ or "").joinpath(SUPERVISOR).read_bytes()
        entry = tarfile.TarInfo(SUPERVISOR)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def _prepare(transport: Transport, folder: str, *, install: bool) -> str:
    """Return the Python that runs the bundle; with `install`, of a new environment."""
    if not install:
        return "python3"
    environment = f"{folder}/environment"
    done = transport.run(
        f"python3 -m venv {shlex.quote(environment)} && "
        f"{shlex.quote(environment)}/bin/python -m pip install --quiet --no-cache-dir "
        f"--disable-pip-version-check --require-hashes -r {_in(folder, 'bundle/requirements.txt')}",
        timeout=1800,
    )
    if done.code:
        raise MissingRequirementError(
            f"{transport.name} could not install the bundle's requirements{_because(done)}"
        )
    return f"{environment}/bin/python"


def _wait(transport: Transport, folder: str, retry: _Retry, on_wait: Callable[[], None]) -> int:
    """Return the runner's exit code when it has ended, and keep the lease until then."""
    pause = 0.5
    while True:
        done = retry(
            lambda: transport.run(
                f"touch {_in(folder, 'lease')} && {{ cat {_in(folder, 'code')} 2>/dev/null || :; }}"
            )
        )
        if done.code:
            raise DataError(
                f"{transport.name} deleted the measurement before it ended{_because(done)}"
            )
        if done.out.strip():
            return int(done.out)
        on_wait()
        time.sleep(pause)
        pause = min(5.0, 1.5 * pause)


@contextmanager
def _temporary_folder(transport: Transport, retry: _Retry) -> Iterator[str]:
    """Yield a new folder on the device; delete it, and end what runs there, afterwards."""
    done = retry(
        lambda: transport.run(
            f'umask 077; for base in "$TMPDIR" {BASES}; do [ -n "$base" ] && [ -w "$base" ] && '
            'exec mktemp -d "$base/lesiontk-bench.XXXXXXXX"; done; exit 1'
        )
    )
    folder = done.out.decode("utf-8", "replace").strip()
    if done.code or not re.fullmatch(r"/[\w./-]+/lesiontk-bench\.\w+", folder):
        raise DataError(f"{transport.name} has no folder for temporary files{_because(done)}")
    try:
        yield folder
    finally:
        with suppress(UnreachableError):  # then its lease ends
            retry(
                lambda: transport.run(
                    f"kill $(cat {_in(folder, 'pid')} 2>/dev/null) 2>/dev/null; "
                    f"rm -rf {shlex.quote(folder)}"
                )
            )


class _Retry:
    """Calls again what loses the connection, until it was lost for `patience_s` seconds.

    The first connection is not tried again: a host that was never reached is a mistake.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._connected = False

    def __call__(self, act: Callable[[], T]) -> T:
        lost = None
        pause = 0.5
        while True:
            try:
                result = act()
            except UnreachableError:
                now = time.monotonic()
                lost = lost or now
                if not self._connected or now - lost > self._patience_s:
                    raise
                time.sleep(pause)
                pause = min(10.0, 2 * pause)
            else:
                self._connected = True
                return result


def _in(folder: str, name: str) -> str:
    return shlex.quote(f"{folder}/{name}")


def _because(done: Completed) -> str:
    said = done.err.strip() or done.out.decode("utf-8", "replace").strip()
    return f" ({said[:500]})" if said else ""
