"""The interface of a transport: commands and files on another machine."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lesiontk.errors import DataError, MissingRequirementError


class UnreachableError(DataError):
    """The device cannot be reached, or the connection was lost."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A command's exit code and output."""

    code: int
    out: bytes
    err: str


class Transport(ABC):
    """A device at `host`, for `user` and at `port` if given; `name` is how messages call it."""

    client: ClassVar[str]
    remedy: ClassVar[str]

    @abstractmethod
    def __init__(self, user: str, host: str, port: int | None) -> None: ...

    @property
    @abstractmethod
    def name(self) -> str: ...

    @abstractmethod
    def run(self, command: str, stdin: bytes = b"", timeout: float = 60.0) -> Completed:
        """Run a line of POSIX shell there. Raises `UnreachableError`."""

    @abstractmethod
    def unpack(self, archive: bytes, folder: str) -> None:
        """Unpack a ``.tar.gz`` into a folder there. Raises `UnreachableError`, `DataError`."""

    def call(self, words: Sequence[str], stdin: bytes, timeout: float) -> Completed:
        """Call the client on this machine.

        Raises `MissingRequirementError` without it, `UnreachableError` if it does not return.
        """
        try:
            done = subprocess.run(
                words, input=stdin, capture_output=True, check=False, timeout=timeout
            )
        except FileNotFoundError as error:
            raise MissingRequirementError(
                f"the program {self.client} is missing; {self.remedy}"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise UnreachableError(f"{self.name} did not answer in {timeout:.0f} s.") from error
        return Completed(done.returncode, done.stdout, done.stderr.decode("utf-8", "replace"))
