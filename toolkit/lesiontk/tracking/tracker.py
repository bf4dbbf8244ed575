"""The interface of a tracker, and the runs that it records."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class State(StrEnum):
    """The state of a run. `STOPPED` work, as by Ctrl-C or a pruner, can be continued."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRun:
    """One run of a tracker: of an artefact, a search, or a trial of it.

    `key` identifies it: it is recorded once, whoever makes it. `name` is for readers. `epochs` maps
    the number of an epoch, from 1, to its metrics. `parent` is the key of the run that contains it,
    if any. `started` and `ended` are in seconds since 1970, None for now.

    It contains hashes, figures and names, and neither an image, an image's identifier nor a path.
    """

    key: str
    name: str
    state: State
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    epochs: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    parent: str = ""
    started: float | None = None
    ended: float | None = None


class Tracker(ABC):
    """Records runs with one tool, in its own store.

    The methods raise whatever the tool raises; `lesiontk.workflow.tracking` goes on without it.
    """

    @classmethod
    @abstractmethod
    def check(cls) -> None:
        """Raise `MissingRequirementError` without its package; nothing is opened or loaded."""

    @abstractmethod
    def __init__(self, workspace: Path) -> None:
        """Connect. Raises `MissingRequirementError` if the store cannot be reached.

        A store on this machine is in the folder `workspace`, unless the tool was told another.
        """

    @abstractmethod
    def write(self, run: TrackedRun) -> None:
        """Create the run, or add to the recorded one of its key what that does not have.

        Epochs that were recorded stay; a metric, tag or state that differs is replaced. The same
        run again changes nothing.
        """


def explain_failure(error: Exception) -> str:
    """Return why a tool failed, in one line, without users and passwords of URLs."""
    lines = str(error).strip().splitlines() or [""]
    return hide_password(f"{type(error).__name__}: {lines[0]}").rstrip(".")


def hide_password(text: str) -> str:
    """Return a text without user and password of the URLs in it."""
    return re.sub(r"//[^/@\s]*@", "//", text)
