"""Steps as tasks of Ray: several jobs at once, each step once, and one machine to measure on."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any

from lesiontk.errors import DataError, LesionTKError, UsageError
from lesiontk.files.hashing import hash_document
from lesiontk.records import Artefact
from lesiontk.search.study import ATTEMPTS
from lesiontk.stage import EpochObserver, Needs, StoppedError
from lesiontk.stages import STAGES
from lesiontk.workflow.executor import Executor, StepBuild
from lesiontk.workflow.ray_cluster import Cluster
from lesiontk.workflow.ray_worker import Relay, StepCall, make_step

logger = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds in which cancelled tasks put away their work, before their processes end."""


class RayExecutor(Executor):
    """Each thread of `repeat` runs one job; its steps are tasks, of which this holds names alone.

    A task whose process ends, as by a lack of memory, is tried again, up to `ATTEMPTS` times.
    """

    def __init__(self, cluster: Cluster, parallel: int | None = None) -> None:
        super().__init__()
        self._cluster, self._ray = cluster, cluster.ray
        self.parallel = parallel or max(1, cluster.cpus // STAGES.get("train").info.needs.cpus)
        self.cpus = max(1, min(cluster.cpus // self.parallel, cluster.largest))
        self._lock = threading.Condition()
        self._making: dict[str, Future[str]] = {}
        self._made: dict[str, str] = {}
        self._running: set[Any] = set()
        self._jobs = self._waiting = 0
        self._stopping = False
        self._observers: dict[str, EpochObserver] = {}
        self._stopped: dict[str, Exception] = {}
        self._task = self._ray.remote(make_step)
        options = {"num_cpus": 0, "scheduling_strategy": cluster.pin()}
        self._relay = self._ray.remote(Relay).options(**options).remote()
        self._listener = threading.Thread(target=self._listen, name="ray-events", daemon=True)
        self._listener.start()
        logger.info(
            "Ray: %d at once, each on %d of %d core(s)", self.parallel, self.cpus, cluster.cpus
        )

    def close(self) -> None:
        """End the tasks that still run, and the thread that prints their lines."""
        self._cancel()
        self._relay.end.remote()
        self._listener.join(PATIENCE)

    # ---------------------------------------------------------------- jobs

    def repeat(self, job: Callable[[], bool]) -> None:
        """Call the job in `parallel` threads until it returns False.

        Engines are measured when all running jobs have come to it, one after another; until then no
        other job starts, so that nothing runs beside them. After an error or an interrupt none
        starts, either; a bug and an interrupt end the tasks.
        """
        errors: list[BaseException] = []
        self._stopping = False

        def run() -> None:
            try:
                while self._run_one(job):
                    pass
            except BaseException as error:  # noqa: BLE001 - raised again by the calling thread
                errors.append(error)
                with self._lock:
                    self._stopping = True
                    self._lock.notify_all()
                if not isinstance(error, LesionTKError):
                    self._cancel()

        threads = [threading.Thread(target=run, daemon=True) for _ in range(self.parallel)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.1)  # an interrupt comes between two of them
        except BaseException:
            self._cancel()
            for thread in threads:
                thread.join(PATIENCE)
            raise
        if errors:
            raise errors[0]

    def _run_one(self, job: Callable[[], bool]) -> bool:
        with self._lock:
            self._lock.wait_for(lambda: self._stopping or not self._waiting)
            if self._stopping:
                return False
            self._jobs += 1
        try:
            return job()
        finally:
            with self._lock:
                self._jobs -= 1
                self._lock.notify_all()

    @contextmanager
    def _measuring(self) -> Iterator[None]:
        with self._lock:
            self._waiting += 1
            self._lock.notify_all()
            self._lock.wait_for(lambda: self._stopping or self._waiting >= self._jobs)
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1
                self._lock.notify_all()

    def _cancel(self) -> None:
        with self._lock:
            self._stopping = True
            self._lock.notify_all()
            running = list(self._running)
        for task in running:
            self._ray.cancel(task)

    # ---------------------------------------------------------------- steps

    def _build(self, wanted: StepBuild) -> Artefact:
        key = hash_document(
            {
                "stage": wanted.step.stage,
                "config": wanted.step.config.model_dump(mode="json"),
                "parents": wanted.parent_names,
            }
        )
        while True:
            with self._lock:
                known = None if wanted.restart else self._made.get(key)
                making = self._making.get(key)
                if making is None and known is None:
                    own = self._making[key] = Future()
            if known is not None:
                with suppress(UsageError):
                    return wanted.store.resolve(known)
                self._made.pop(key, None)  # it was deleted meanwhile
            elif making is not None:
                with suppress(StoppedError):  # the trial of another thread fell behind, not this
                    return wanted.store.resolve(making.result())
            else:
                return self._make(key, own, wanted)

    def _make(self, key: str, making: Future[str], wanted: StepBuild) -> Artefact:
        """Return the artefact of a step, made for this thread and those that wait for its name."""
        try:
            name = self._try_task(wanted)
        except BaseException as error:
            with self._lock:
                del self._making[key]
            making.set_exception(error)
            raise
        with self._lock:
            self._made[key] = name
            del self._making[key]
        making.set_result(name)
        made = wanted.store.resolve(name)
        wanted.store.observer.end(made)
        return made

    def _try_task(self, wanted: StepBuild) -> str:
        store, step, needs = wanted.store, wanted.step, wanted.needs
        for parent in wanted.parents.values():
            store.share(parent)  # it may be older than the shared store
        for _ in range(ATTEMPTS):
            call = StepCall(
                workspace=store.workspace.resolve(),
                home="" if self._cluster.common else self._cluster.node,
                shared=store.shared,
                stage=step.stage,
                config=step.config,
                parents=wanted.parent_names,
                recipe=wanted.recipe,
                restart=wanted.restart,
                threads=self._cluster.own if needs.alone else self.cpus,
                token=uuid.uuid4().hex,
                observed=store.epoch_observer is not None,
                job=self.job_name,
                level=logging.getLogger("lesiontk").getEffectiveLevel(),
            )
            try:
                return self._run_task(call, needs, store.epoch_observer)
            except self._cluster.lost as error:
                why = str(error).strip().splitlines()[0]
                logger.warning("%s%s: a worker ended: %s", _prefix(call.job), step.name, why)
        raise DataError(
            f"{ATTEMPTS} processes ended in the step {step.name}, as by a lack of memory; expected "
            "one that a worker can make."
        )

    def _run_task(self, call: StepCall, needs: Needs, on_epoch: EpochObserver | None) -> str:
        if on_epoch is not None:
            self._observers[call.token] = on_epoch
        errors = self._ray.exceptions
        options = self._options_of(needs, call.stage)
        with self._lock:
            if self._stopping:
                raise KeyboardInterrupt
            task = self._task.options(**options).remote(call, self._relay)
            self._running.add(task)
        try:
            return str(self._ray.get(task))
        except errors.TaskCancelledError:
            raise KeyboardInterrupt from None
        except errors.RayTaskError as error:
            if isinstance(error.cause, StoppedError):
                raise self._stopped.pop(call.token) from None
            if isinstance(error.cause, LesionTKError):
                raise error.cause from None
            raise
        finally:
            with self._lock:
                self._running.discard(task)
            self._observers.pop(call.token, None)

    def _options_of(self, needs: Needs, name: str) -> dict[str, Any]:
        """Return what Ray reserves: for a measurement the whole machine of this process."""
        cluster = self._cluster
        here = needs.here or needs.alone
        cpus = cluster.own if needs.alone else min(self.cpus, cluster.own) if here else self.cpus
        return {
            "name": name,
            "num_cpus": cpus,
            "num_gpus": int(needs.gpu and cluster.gpus > 0 and not here),
            "max_retries": 0,
            "scheduling_strategy": cluster.pin() if here else "DEFAULT",
        }

    # ---------------------------------------------------------------- events

    def _listen(self) -> None:
        """Print the lines of the tasks, and answer for each epoch whether its training goes on."""
        while True:
            try:
                events = self._ray.get(self._relay.take.remote())
            except self._ray.exceptions.RayError:
                return  # the cluster ended
            for event in events:
                if event is None:
                    return
                kind, *rest = event
                if kind == "log":
                    logger.log(rest[0], "%s", rest[1])
                else:
                    self._answer(*rest)

    def _answer(self, token: str, epoch: int, metrics: Mapping[str, float]) -> None:
        on_epoch = self._observers.get(token)
        stop = False
        if on_epoch is not None:
            try:
                on_epoch(epoch, metrics)
            except Exception as error:  # noqa: BLE001 - raised by the thread of the training
                self._stopped[token] = error
                stop = True
        self._relay.answer.remote(token, stop)


def _prefix(job: str) -> str:
    return f"{job}: " if job else ""
