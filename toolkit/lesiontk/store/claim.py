"""A claim on an artefact of a shared store: one machine makes it, and the others wait.

``<name>/.making`` is created once and rewritten while the work goes on. A claim that has not
changed for a minute, by the clock of the machine that waits, is of a killed process and is taken
over. Two machines that take it over at once both make the artefact, which is harmless.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from lesiontk.errors import LesionTKError

logger = logging.getLogger(__name__)

CLAIM = ".making"


@dataclass(frozen=True, slots=True)
class ClaimPolicy:
    """Seconds between the changes of a claim, between two looks at it, and until it expires."""

    beat: float = 10.0
    look: float = 3.0
    expiry: float = 60.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


DEFAULT_POLICY = ClaimPolicy()


class Objects(Protocol):
    """The small objects of an artefact there, by name."""

    def read(self, name: str) -> bytes | None: ...
    def write(self, name: str, content: bytes, *, new: bool = False) -> bool: ...
    def remove(self, name: str) -> None: ...


@contextmanager
def hold_claim(
    objects: Objects, artefact: str, owner: str, is_made: Callable[[], bool], policy: ClaimPolicy
) -> Iterator[bool]:
    """Wait until no other machine makes the artefact; yield whether it is left to this one.

    `owner` is a workspace, whose own lock the caller holds: an earlier claim of it is not waited
    for. While the body runs the claim is rewritten; then it is removed.
    """
    mine = f"{owner} {uuid.uuid4().hex}"
    if not _acquire(objects, artefact, owner, f"{mine} 0".encode(), is_made, policy):
        yield False
        return
    done, written = threading.Event(), [f"{mine} 0".encode()]

    def beat() -> None:
        while not done.wait(policy.beat):
            content = f"{mine} {len(written)}".encode()
            with suppress(LesionTKError):  # a beat that is lost may cost work, and no result
                objects.write(CLAIM, content)
                written.append(content)

    beating = threading.Thread(target=beat, daemon=True)
    beating.start()
    try:
        yield not is_made()  # the other may have ended between the last two looks
    finally:
        done.set()
        beating.join()
        with suppress(LesionTKError):  # it expires
            if objects.read(CLAIM) == written[-1]:
                objects.remove(CLAIM)


def _acquire(
    objects: Objects,
    artefact: str,
    owner: str,
    content: bytes,
    is_made: Callable[[], bool],
    policy: ClaimPolicy,
) -> bool:
    seen: bytes | None = None
    since = policy.clock()
    while not objects.write(CLAIM, content, new=True):
        if is_made():
            return False
        there = objects.read(CLAIM)
        expired = there == seen and policy.clock() - since >= policy.expiry
        if there is not None and (expired or there.startswith(owner.encode())):
            objects.write(CLAIM, content)
            return True
        if there != seen:
            if seen is None:
                logger.warning("%s: another machine is making it; waiting", artefact)
            seen, since = there, policy.clock()
        policy.sleep(policy.look)
    return True
