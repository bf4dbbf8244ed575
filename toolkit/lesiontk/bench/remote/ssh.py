"""Transport ``ssh``: the user's own OpenSSH client, with its configuration, keys and agent."""

from __future__ import annotations

import re
import shlex
from typing import ClassVar

from lesiontk.bench.remote.transport import Completed, Transport, UnreachableError
from lesiontk.errors import DataError, UsageError

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*|[0-9A-Fa-f:]+")
LOST = 255
"""The exit code of ssh itself, if it cannot connect or loses the connection."""
OPTIONS = (
    "-T",
    "-o", "BatchMode=yes",
    "-o", "ConnectTimeout=10",
    "-o", "ServerAliveInterval=5",
    "-o", "ServerAliveCountMax=3",
)  # fmt: skip


class SSH(Transport):
    """A machine with an SSH server."""

    client: ClassVar[str] = "ssh"
    remedy: ClassVar[str] = "install OpenSSH's client."

    def __init__(self, user: str, host: str, port: int | None) -> None:
        for what, value in (("host", host), *([("user", user)] if user else [])):
            if not NAME.fullmatch(value):  # nothing that ssh would take for an option
                raise UsageError(f"the {what} is {value!r}; expected ssh://USER@HOST[:PORT].")
        self._name = f"{user}@{host}" if user else host
        self._options = ["-p", str(port)] if port else []

    @property
    def name(self) -> str:
        return self._name

    def run(self, command: str, stdin: bytes = b"", timeout: float = 60.0) -> Completed:
        words = ["ssh", *OPTIONS, *self._options, self._name, command]
        done = self.call(words, stdin, timeout)
        if done.code == LOST:
            raise UnreachableError(
                f"{self._name} cannot be reached: {done.err.strip() or 'the connection was lost'}. "
                f"`ssh {shlex.join([*self._options, self._name])}` must work without a password."
            )
        return done

    def unpack(self, archive: bytes, folder: str) -> None:
        done = self.run(f"tar -xzf - -C {shlex.quote(folder)}", archive, timeout=600)
        if done.code:
            raise DataError(f"{self.name} could not unpack the bundle: {done.err.strip()}.")
