"""Distributed training over GPUs or machines with tf.distribute, with the steps of one process.

Every worker reads the same images and makes the same global batches, and each replica uses its
rows, so that augmentation and mixing do not depend on the number of replicas. All replicas apply
the sum of the gradients, scaled to the mean over the global batch. Differences from a single
process, besides rounding: dropout is drawn separately in each replica, and BatchNormalization uses
only the rows of its replica (its moving averages are averaged over replicas after each epoch).
"""

from __future__ import annotations

import functools
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.errors import MissingRequirementError, UsageError
from lesiontk.recipe import TrainSection
from lesiontk.system.frameworks import import_tensorflow
from lesiontk.train.tf_config import Cluster, read_cluster

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Distribution:
    """A strategy of tf.distribute with the operations that training needs."""

    strategy: Any

    @property
    def replicas(self) -> int:
        """The number of model replicas over all workers."""
        return int(self.strategy.num_replicas_in_sync)

    def share(self, batches: Any, batch_size: int) -> Any:
        """Return the batches split into the rows of each replica, [B / replicas, ...].

        `batches` is a ``tf.data.Dataset`` of global batches, the same in every worker.
        """
        if self.replicas == 1:
            return batches
        size = batch_size // self.replicas

        def take(context: Any) -> Any:
            rows = batch_size // context.num_input_pipelines
            first = context.input_pipeline_id * rows
            local = batches.map(lambda *parts: tuple(p[first : first + rows] for p in parts))
            return local.rebatch(size).prefetch(import_tensorflow().data.AUTOTUNE)

        return self.strategy.distribute_datasets_from_function(take)

    def gather(self, values: Sequence[int]) -> NDArray[np.int64]:
        """Return the values of every replica, int64 [replicas, len(values)].

        All workers must call it; it returns when the last one has.
        """
        if self.replicas == 1:
            return np.array([values], np.int64)
        local = self.strategy.experimental_distribute_values_from_function(
            lambda _: import_tensorflow().constant([values], "int64")
        )
        return np.asarray(self.strategy.gather(local, axis=0))

    def average_variables(self, model: Any) -> None:
        """Average the replicas' own variables (BatchNormalization) over all replicas."""
        if self.replicas > 1:
            for variable in model.non_trainable_variables:
                variable.assign(variable.numpy())


def check_distribution(section: TrainSection) -> None:
    """Raise unless this machine and TF_CONFIG support ``train.distribute``.

    Raises `MissingRequirementError` for what is missing, `UsageError` for a malformed TF_CONFIG or
    a batch that cannot be divided equally. Starts nothing.
    """
    if section.distribute == "none":
        return
    gpus = len(_list_gpus())
    if section.distribute == "multi_worker":
        _check_shares(section, len(read_cluster().addresses) * max(gpus, 1))
        return
    if gpus == 0:
        raise MissingRequirementError(
            "train.distribute is mirrored, but TensorFlow finds no GPU on this machine; expected "
            "one or more (`lesiontk doctor` lists them). Use train.distribute=none."
        )
    _check_shares(section, gpus)


def make_distribution(section: TrainSection, devices: Sequence[str] = ()) -> Distribution:
    """Return the distribution of the recipe; with several workers, when all are connected.

    `devices` are those of ``mirrored``, such as ``CPU:0``; by default all GPUs. Raises as
    `check_distribution`, and `UsageError` if TensorFlow was already used in this process, because
    it cannot join other workers then.
    """
    return Distribution(_STRATEGIES[section.distribute](section, devices))


def _use_one_replica(section: TrainSection, devices: Sequence[str]) -> Any:
    return import_tensorflow().distribute.get_strategy()


def _mirror(section: TrainSection, devices: Sequence[str]) -> Any:
    if devices:
        _check_shares(section, len(devices))
    else:
        check_distribution(section)
    return _open_mirrored(tuple(devices))


def _join_workers(section: TrainSection, devices: Sequence[str]) -> Any:
    check_distribution(section)
    cluster = read_cluster()
    logger.info(
        "worker %d of %d waits for the others: %s",
        cluster.index,
        len(cluster.addresses),
        ", ".join(cluster.addresses),
    )
    return _open_workers(cluster)


# Once per process: TensorFlow numbers a strategy's collectives, and two would be mixed up.
@functools.cache
def _open_mirrored(devices: tuple[str, ...]) -> Any:
    return import_tensorflow().distribute.MirroredStrategy(list(devices) or None)


@functools.cache
def _open_workers(cluster: Cluster) -> Any:
    try:
        with _keep_signals():
            return import_tensorflow().distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise UsageError(
            f"this process cannot join other workers ({error}); expected a process in which "
            "TensorFlow was not used yet, such as that of `lesiontk train`."
        ) from error


@contextmanager
def _keep_signals() -> Iterator[None]:
    """Let Ctrl-C, or a SIGTERM after it, end the process while TensorFlow waits.

    TensorFlow waits outside of Python, which then handles no signal, and treats SIGTERM as a
    preemption notice.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    terminate = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
    interrupt = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, terminate)


_STRATEGIES: dict[str, Callable[[TrainSection, Sequence[str]], Any]] = {
    "none": _use_one_replica,
    "mirrored": _mirror,
    "multi_worker": _join_workers,
}


def _list_gpus() -> list[Any]:
    return list(import_tensorflow().config.list_physical_devices("GPU"))


def _check_shares(section: TrainSection, replicas: int) -> None:
    parts = replicas * section.micro_batches
    if section.batch_size % parts:
        raise UsageError(
            f"train.batch_size is {section.batch_size}, over all replicas; expected "
            f"a multiple of {parts}: {replicas} replica(s) of {section.micro_batches} "
            "micro-batch(es)."
        )


@contextmanager
def explain_lost_workers(section: TrainSection) -> Iterator[None]:
    """Convert TensorFlow's errors of a lost worker to `MissingRequirementError`."""
    if section.distribute != "multi_worker":
        yield
        return
    errors = import_tensorflow().errors
    try:
        yield
    except (
        errors.UnavailableError,
        errors.AbortedError,
        errors.CancelledError,
        errors.DeadlineExceededError,
        errors.InternalError,
    ) as error:
        raise MissingRequirementError(
            f"this worker has lost the others ({type(error).__name__}); expected all to run to the "
            "end. Start the same command on every worker again: training resumes "
            "after the last epoch that all of them have."
        ) from error
