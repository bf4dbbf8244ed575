"""One training shared out over GPUs or machines by tf.distribute, in the same steps as alone.

Every worker reads the same images and makes the same global batches, of which each replica takes
its own rows, so that augmentation and mixing draw the same numbers however many share the work. The
gradients' sum, scaled to the mean over the global batch, moves all replicas alike. What differs
from one process, beside rounding: dropout draws anew in each replica, and BatchNormalization sees
the rows of its replica alone (its averages are those of all replicas, from epoch to epoch).
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
    """A strategy of tf.distribute, and what training asks of it."""

    strategy: Any

    @property
    def replicas(self) -> int:
        """How many copies of the model learn in step, over all workers."""
        return int(self.strategy.num_replicas_in_sync)

    def share(self, batches: Any, batch_size: int) -> Any:
        """Return the batches as each replica takes its rows of them, [B / replicas, ...].

        `batches` is a ``tf.data.Dataset`` of global batches, the same in every worker.
        """
        if self.replicas == 1:
            return batches
        size = batch_size // self.replicas

        def take(context: Any) -> Any:
            rows = batch_size // context.num_input_pipelines
            first = context.input_pipeline_id * rows
            mine = batches.map(lambda *parts: tuple(p[first : first + rows] for p in parts))
            return mine.rebatch(size).prefetch(import_tensorflow().data.AUTOTUNE)

        return self.strategy.distribute_datasets_from_function(take)

    def gather(self, values: Sequence[int]) -> NDArray[np.int64]:
        """Return the values of every replica, int64 [replicas, len(values)].

        All workers must call it: it ends when the last one has.
        """
        if self.replicas == 1:
            return np.array([values], np.int64)
        mine = self.strategy.experimental_distribute_values_from_function(
            lambda _: import_tensorflow().constant([values], "int64")
        )
        return np.asarray(self.strategy.gather(mine, axis=0))

    def level(self, model: Any) -> None:
        """Give every replica the mean of what each has counted for itself (BatchNormalization)."""
        if self.replicas > 1:
            for variable in model.non_trainable_variables:
                variable.assign(variable.numpy())


def check_distribution(section: TrainSection) -> None:
    """Raise unless this machine, and TF_CONFIG, allow what ``train.distribute`` asks for.

    `MissingRequirementError` for what is missing, `UsageError` for a malformed TF_CONFIG or a batch
    that cannot be shared equally. Starts nothing.
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
            "one or more (`lesiontk doctor` shows what it finds). Use train.distribute=none."
        )
    _check_shares(section, gpus)


def make_distribution(section: TrainSection, devices: Sequence[str] = ()) -> Distribution:
    """Return the distribution that the recipe asks for; with several workers, once all are there.

    `devices` are what ``mirrored`` runs on, as ``CPU:0``; by default all GPUs. Raises as
    `check_distribution`, and `UsageError` if TensorFlow has worked in this process already, for
    then it can join no other worker.
    """
    return Distribution(_STRATEGIES[section.distribute](section, devices))


def _stay_alone(section: TrainSection, devices: Sequence[str]) -> Any:
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


# Once in a process: TensorFlow numbers a strategy's exchanges, and those of two would be mixed up.
@functools.cache
def _open_mirrored(devices: tuple[str, ...]) -> Any:
    return import_tensorflow().distribute.MirroredStrategy(list(devices) or None)


@functools.cache
def _open_workers(cluster: Cluster) -> Any:
    try:
        with _stay_killable():
            return import_tensorflow().distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise UsageError(
            f"this process cannot join other workers ({error}); expected a process in which "
            "TensorFlow has not worked yet, as that of `lesiontk train`."
        ) from error


@contextmanager
def _stay_killable() -> Iterator[None]:
    """Let Ctrl-C end the process while TensorFlow waits, and a SIGTERM after it.

    It waits outside of Python, which then handles no signal, and takes SIGTERM for a notice that it
    goes on after.
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
    "none": _stay_alone,
    "mirrored": _mirror,
    "multi_worker": _join_workers,
}


def _list_gpus() -> list[Any]:
    return list(import_tensorflow().config.list_physical_devices("GPU"))


def _check_shares(section: TrainSection, replicas: int) -> None:
    parts = replicas * section.micro_batches
    if section.batch_size % parts:
        raise UsageError(
            f"train.batch_size is {section.batch_size}, for all replicas together; expected "
            f"a multiple of {parts}: {replicas} replica(s) of {section.micro_batches} "
            "micro-batch(es)."
        )


@contextmanager
def explain_lost_workers(section: TrainSection) -> Iterator[None]:
    """Turn what TensorFlow says when a worker is gone into `MissingRequirementError`."""
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
            "end. Start the same command on every worker again: training goes on "
            "after the last epoch that all of them have."
        ) from error
