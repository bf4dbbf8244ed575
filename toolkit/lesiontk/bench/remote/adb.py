"""Transport ``adb``: Android's debug bridge, for boards and devices with Python."""

from __future__ import annotations

import re
import shlex
import tempfile
from pathlib import Path
from typing import ClassVar

from lesiontk.bench.remote.transport import Completed, Transport, UnreachableError
from lesiontk.errors import DataError, UsageError

SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
LOST = re.compile(
    r"^(adb: |error: )?(error: )?(device .*(not found|offline|unauthorized)|no devices|closed|"
    r"more than one device)",
    re.MULTILINE,
)


class ADB(Transport):
    """A device on Android's debug bridge; without a serial number, the only one."""

    client: ClassVar[str] = "adb"
    remedy: ClassVar[str] = "install Android's platform tools."

    def __init__(self, user: str, host: str, port: int | None) -> None:
        serial = f"{host}:{port}" if port else host
        if user or (host and not SERIAL.fullmatch(host)):
            raise UsageError(f"the device is {user or host!r}; expected adb://SERIAL.")
        self._serial = serial
        self._words = ["adb", *(["-s", serial] if serial else [])]

    @property
    def name(self) -> str:
        return f"adb {self._serial}".strip()

    def run(self, command: str, stdin: bytes = b"", timeout: float = 60.0) -> Completed:
        return self._call(["shell", "-T", command], stdin, timeout)

    def unpack(self, archive: bytes, folder: str) -> None:
        there = f"{folder}/bundle.tar.gz"
        with tempfile.TemporaryDirectory() as here:
            packed = Path(here) / "bundle.tar.gz"
            packed.write_bytes(archive)
            self._check(self._call(["push", str(packed), there], b"", 600))
        quoted = shlex.quote(there)
        self._check(self.run(f"tar -xzf {quoted} -C {shlex.quote(folder)} && rm {quoted}"))

    def _check(self, done: Completed) -> None:
        if done.code:
            raise DataError(f"{self.name} could not unpack the bundle: {done.err.strip()}.")

    def _call(self, words: list[str], stdin: bytes, timeout: float) -> Completed:
        done = self.call([*self._words, *words], stdin, timeout)
        if done.code and LOST.search(done.err):
            raise UnreachableError(
                f"{self.name} cannot be reached: {done.err.strip()}. `adb devices` lists devices."
            )
        return done
