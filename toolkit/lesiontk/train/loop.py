"""The training loop: epochs, validation, best weights, checkpoints, exact resume."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.data.images import ImageSet
from lesiontk.errors import DataError
from lesiontk.evaluate.metrics import compute_metrics
from lesiontk.files.hashing import hash_document
from lesiontk.progress import Progress
from lesiontk.recipe import TrainSection
from lesiontk.records import ValidationScores
from lesiontk.stage import EpochObserver
from lesiontk.system.frameworks import import_keras, import_tensorflow
from lesiontk.train.checkpoints import (
    TrainingState,
    forget_after,
    list_generators,
    read_state,
    restore_checkpoint,
    save_checkpoint,
    save_state,
)
from lesiontk.train.distillation import SoftTargets
from lesiontk.train.distribution import Distribution, explain_lost_workers, make_distribution
from lesiontk.train.feature_losses import PROJECTION
from lesiontk.train.gradient_accumulation import accumulate_gradients
from lesiontk.train.optimizer import make_optimizer, make_schedule
from lesiontk.train.recall_constraint import (
    NO_BIAS,
    fit_logit_bias,
    has_bias,
    raise_biases,
    shift_probabilities,
)
from lesiontk.train.stochastic_depth import add_stochastic_depth
from lesiontk.train.training_set import TrainingSet, make_training_set

logger = logging.getLogger(__name__)


def train_model(
    build: Callable[[int | None], Any],
    images: ImageSet,
    section: TrainSection,
    scratch: Path,
    progress: Progress,
    devices: Sequence[str] = (),
    soft_targets: SoftTargets | None = None,
    keep_recalls: Mapping[str, float] | None = None,
    on_epoch: EpochObserver | None = None,
) -> tuple[Any, TrainingState]:
    """Return a float32 model with the weights of its best epoch, and the training history.

    `build` makes the model (pixels to probabilities) for an image size, or for any size if None.
    `scratch` contains the checkpoints: after a kill, the same call resumes after the last complete
    epoch and gives the same curve. The best epoch has the highest validation balanced accuracy. If
    the recall of a class falls below that in `keep_recalls`, the epoch is scored, and the model
    returned, with the logit bias of `fit_logit_bias`.

    `devices` are as in `make_distribution`, `soft_targets` those of a teacher. Each of several
    workers calls this with its own scratch folder, and each gets the same model. `on_epoch` is
    called after each epoch, once its checkpoint is written; what it raises ends the training.
    """
    state = read_state(scratch)
    if not state.done:
        with explain_lost_workers(section):
            distribution = make_distribution(section, devices)
            epoch = _agree(distribution, images, section, state)
            forget_after(epoch, scratch)
            state = read_state(scratch)
            state.keep_recalls = dict(keep_recalls or {})
            training_set = make_training_set(images, section, soft_targets)
            _train(build, training_set, distribution, state, scratch, progress, on_epoch)
            distribution.gather([state.epoch])  # all workers have it: none waits for this one again
        state.done = True
        save_state(state, scratch)
    import_keras().backend.clear_session()
    final = build(images.preprocessing.image_size)
    final.load_weights(str(scratch / "best.weights.h5"))
    if any(state.shifts):
        raise_biases(final, np.array(state.shifts))
    return final, state


def _agree(
    distribution: Distribution, images: ImageSet, section: TrainSection, state: TrainingState
) -> int:
    """Return the last epoch that all workers have. Raises `DataError` if their inputs differ."""
    plan = [section.model_dump(mode="json"), images.split_hash, images.hashes, images.subsets]
    digest = int(hash_document(plan)[:15], 16)
    gathered = distribution.gather([digest, state.epoch])
    if (gathered[:, 0] != digest).any():
        raise DataError(
            "the workers have different images, splits or train sections; expected the same recipe "
            "and the same data on each."
        )
    return int(gathered[:, 1].min())


def _train(
    build: Callable[[int | None], Any],
    training_set: TrainingSet,
    distribution: Distribution,
    state: TrainingState,
    scratch: Path,
    progress: Progress,
    on_epoch: EpochObserver | None,
) -> None:
    tf, keras, section = import_tensorflow(), import_keras(), training_set.section
    keras.utils.set_random_seed(section.seed)
    # Dropout then uses a generator whose state can be saved.
    keras.backend.experimental.enable_tf_random_generator()
    with distribution.strategy.scope():
        size = None if section.grow else training_set.images.preprocessing.image_size
        model = _build_in_policy(lambda: build(size), section)
        model = add_stochastic_depth(model, section.stochastic_depth)
        output = training_set.make_output(model)
        accumulating = accumulate_gradients(model, section.micro_batches, output)
    projection = [layer for layer in accumulating.layers if layer.name == PROJECTION]
    saved = {"model": model, **({"projection": projection[0]} if projection else {})}
    if state.keep_recalls and not has_bias(model):
        logger.warning(NO_BIAS)
        state.keep_recalls = {}
    generators = list_generators(model)
    resumed = state.epoch > 0
    if resumed:
        logger.info("training resumes after epoch %d", state.epoch)
        for generator, value in zip(generators, state.generators, strict=True):
            generator.reset(value)
    writer = tf.summary.create_file_writer(str(scratch / "tensorboard"))
    with progress.task("training", section.epochs * max(training_set.steps, 1)) as advance:
        advance(state.epoch * training_set.steps)
        for phase in list_phases(section):
            if state.epoch >= phase.last:
                continue
            for layer in model.layers:
                layer.trainable = phase.whole or layer.name == "logits"
            if resumed:  # before the optimizer is built: averages start from the weights
                restore_checkpoint(tf.train.Checkpoint(**saved), scratch, state)
            rate: Any = section.head_learning_rate
            if phase.whole:
                rate = make_schedule(
                    section, steps=training_set.steps, epochs=phase.last - phase.first
                )
            with distribution.strategy.scope():
                optimizer = make_optimizer(section, accumulating, rate)
                accumulating.compile(optimizer=optimizer, loss=training_set.make_loss())
            checkpoint = tf.train.Checkpoint(**saved, optimizer=optimizer)
            if resumed and state.epoch > phase.first:
                restore_checkpoint(checkpoint, scratch, state)
            resumed = False
            while state.epoch < phase.last and not state.is_over(section):
                start = time.perf_counter()
                loss = _train_epoch(accumulating, training_set, distribution, state.epoch, advance)
                distribution.average_variables(model)
                scores = _validate(model, training_set.images, section, scratch, state)
                row = {"epoch": state.epoch, "loss": loss, **scores.metrics}
                state.curves.append(row)
                _log_scalars(tf, writer, row)
                seconds = time.perf_counter() - start
                state.seconds += seconds
                state.generators = [generator.state.numpy().tolist() for generator in generators]
                # One of several workers may be killed an epoch before another.
                kept = 1 if distribution.replicas == 1 else 2
                save_checkpoint(checkpoint, state, scratch, kept=kept)
                note = (
                    f"epoch {state.epoch}: loss {loss:.3f}, validation balanced accuracy "
                    f"{row['balanced_accuracy']:.3f} (best: epoch {state.best_epoch})"
                )
                advance(0, note)
                logger.info("%s, %.0f s", note, seconds)
                if on_epoch is not None:
                    on_epoch(state.epoch, {"loss": loss, **scores.metrics})
    writer.close()


def _train_epoch(
    accumulating: Any,
    training_set: TrainingSet,
    distribution: Distribution,
    epoch: int,
    advance: Callable[..., None],
) -> float:
    """Run the steps of one epoch and return the mean loss over all replicas."""
    section = training_set.section
    batches = distribution.share(training_set.make_batches(epoch), section.batch_size)
    ticker = import_keras().callbacks.LambdaCallback(on_train_batch_end=lambda *_: advance(1))
    history = accumulating.fit(
        batches, epochs=1, steps_per_epoch=training_set.steps, verbose=0, callbacks=[ticker]
    )
    loss = float(history.history["loss"][0])
    if not math.isfinite(loss):
        raise DataError(
            f"training diverged in epoch {epoch + 1}: the loss is not finite. Reduce "
            f"train.learning_rate (it is {section.learning_rate:g})."
        )
    return loss


@dataclass(frozen=True, slots=True)
class Phase:
    """Epochs `first` to `last` (exclusive) that train the `whole` network or its last layer.

    Each phase has its own optimizer and learning rate schedule.
    """

    first: int
    last: int
    whole: bool


def list_phases(section: TrainSection) -> list[Phase]:
    """Return the phases: only the last layer, if the recipe has such epochs, then all layers."""
    head = section.head_epochs
    return [Phase(0, head, False)] * bool(head) + [Phase(head, section.epochs, True)]


def _build_in_policy(build: Callable[[], Any], section: TrainSection) -> Any:
    policy = import_keras().mixed_precision
    policy.set_global_policy("mixed_bfloat16" if section.mixed_precision else "float32")
    try:
        return build()
    finally:
        policy.set_global_policy("float32")


def _validate(
    model: Any,
    images: ImageSet,
    section: TrainSection,
    scratch: Path,
    state: TrainingState,
) -> ValidationScores:
    """Score the weights on validation, keep the best, and count the epoch.

    With weight averaging these are the averages, which Keras' fit assigns when it ends.
    """
    rows = images.indices("validation")
    probabilities = predict_probabilities(model, images.pixels, rows, section.batch_size)
    shifts = fit_logit_bias(
        images.targets[rows], probabilities, images.labels, images.critical, state.keep_recalls
    )
    scores = score_probabilities(
        shift_probabilities(probabilities, shifts) if shifts.any() else probabilities, images
    )
    state.epoch += 1
    if scores.balanced_accuracy > state.best_score:
        state.best_score, state.best_epoch = scores.balanced_accuracy, state.epoch
        state.shifts = shifts.tolist()
        temporary = scratch / "next.weights.h5"
        model.save_weights(str(temporary))
        temporary.replace(scratch / "best.weights.h5")
    return scores


def score_model(model: Any, images: ImageSet) -> ValidationScores:
    """Return the validation scores by which epochs and models are compared."""
    rows = images.indices("validation")
    return score_probabilities(predict_probabilities(model, images.pixels, rows, 32), images)


def score_probabilities(probabilities: NDArray[np.float32], images: ImageSet) -> ValidationScores:
    """Return those scores of a model's probabilities for the validation images, [n, C]."""
    rows = images.indices("validation")
    values = compute_metrics(images.targets[rows], probabilities, images.labels)
    critical = f"recall[{images.critical}]"
    names = ("balanced_accuracy", "accuracy", "macro_auc", "log_loss", critical)
    return ValidationScores(len(rows), {name: float(values[name][0]) for name in names})


def predict_probabilities(
    model: Any, pixels: NDArray[np.uint8], rows: NDArray[np.int64], batch_size: int
) -> NDArray[np.float32]:
    """Return float32 [len(rows), C], batch by batch, so that memory stays small.

    The last row is repeated until the last batch is whole: a batch of another length is another
    graph, and TensorFlow fails where a worker has no row of a batch.
    """
    padded = np.pad(rows, (0, -len(rows) % batch_size), mode="edge")
    parts = [
        np.asarray(model.predict_on_batch(pixels[padded[i : i + batch_size]].astype(np.float32)))
        for i in range(0, len(padded), batch_size)
    ]
    return np.concatenate(parts).astype(np.float32)[: len(rows)]


def _log_scalars(tf: Any, writer: Any, row: Mapping[str, float]) -> None:
    """Write scalars for TensorBoard, which need not be installed."""
    kind = tf.compat.v1.SummaryMetadata(
        plugin_data={"plugin_name": "scalars"}, data_class="DATA_CLASS_SCALAR"
    )
    with writer.as_default(step=int(row["epoch"])):
        for name, value in row.items():
            tag = name.replace("[", "_").replace("]", "")
            tf.summary.write(tag, tf.constant(value, tf.float32), metadata=kind)
    writer.flush()
