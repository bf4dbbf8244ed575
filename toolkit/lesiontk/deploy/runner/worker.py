"""One thread that owns an engine, behind a bounded queue."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol

from lesiontk.deploy.runner.documents import Answers


class BusyError(Exception):
    """The queue is full."""


class LateError(Exception):
    """No answer came within the time limit."""


class Job:
    """One image's bytes and, when `done` is set, its `answer` or the error."""

    answer: Answers

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.error: Exception | None = None
        self.seconds = 0.0
        self.abandoned = False
        self.done = threading.Event()


class Answer(Protocol):
    """Returns the document of an image's bytes."""

    def __call__(self, data: bytes) -> Answers:
        """Return the document."""


class Worker:
    """Answers one job after another in the thread that opens the engine, as CUDA requires.

    `open_engine` returns a context manager of the function that answers. `slots` jobs are accepted
    at once, waiting ones included; a slot is taken before an upload is read, so that waiting
    uploads cannot fill the memory. Raises what opening the engine raises.
    """

    def __init__(
        self, open_engine: Callable[[], AbstractContextManager[Answer]], slots: int
    ) -> None:
        self._open = open_engine
        self._free = threading.Semaphore(slots)
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._closing = False
        self._fault: Exception | None = None
        self._opened = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()
        self._opened.wait()
        if self._fault is not None:
            raise self._fault

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """The number of jobs that wait for the engine."""
        return self._jobs.qsize()

    def slot(self) -> Slot:
        """Return a slot. Raises `BusyError` if all are taken, or at the end."""
        if self._closing or not self._free.acquire(blocking=False):
            raise BusyError
        return Slot(self._free)

    def run(self, data: bytes, limit_s: float) -> Job:
        """Return the finished job of one image. Raises `LateError`, or the answer's own error."""
        job = Job(data)
        self._jobs.put(job)
        if not job.done.wait(limit_s):
            job.abandoned = True  # the engine does not start it any more
            raise LateError
        if job.error is not None:
            raise job.error
        return job

    def close(self) -> None:
        """Finish the jobs that wait, and end the thread."""
        self._closing = True
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            with self._open() as answer:
                self._opened.set()
                self._answer_jobs(answer)
        except Exception as error:  # noqa: BLE001 - raised where the worker was made
            self._fault = error
        finally:
            self._opened.set()

    def _answer_jobs(self, answer: Answer) -> None:
        for job in iter(self._jobs.get, None):
            if job.abandoned:
                continue
            start = time.perf_counter()
            try:
                job.answer = answer(job.data)
            except Exception as error:  # noqa: BLE001 - the waiting client is told
                job.error = error
            job.data = b""
            job.seconds = time.perf_counter() - start
            job.done.set()


class Slot:
    """A place among the accepted jobs, given back at the end of the block."""

    def __init__(self, free: threading.Semaphore) -> None:
        self._free = free

    def __enter__(self) -> Slot:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._free.release()
