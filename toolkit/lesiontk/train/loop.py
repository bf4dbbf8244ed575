"""The training loop: epochs, validation, best weights, checkpoints, exact resume."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.data.augment import AUGMENTATIONS
from lesiontk.data.batches import training_batches
from lesiontk.data.images import ImageSet
from lesiontk.errors import DataError
from lesiontk.evaluate.metrics import compute_metrics
from lesiontk.frameworks import import_keras, import_tensorflow
from lesiontk.progress import Progress
from lesiontk.recipe import TrainSection
from lesiontk.train.imbalance import IMBALANCE, draw_weights, make_loss

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class TrainingState:
    """What a resume needs to know beside the checkpoint of the same epoch.

    `generators` holds the state of each dropout layer's random numbers, which Keras leaves out of
    checkpoints.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_score: float = -math.inf
    seconds: float = 0.0
    curves: list[dict[str, float]] = field(default_factory=list)
    generators: list[list[int]] = field(default_factory=list)

    def is_over(self, section: TrainSection) -> bool:
        """Whether the last epoch is reached or patience is used up."""
        return self.epoch >= section.epochs or self.epoch - self.best_epoch >= section.patience


def train_model(
    build: Callable[[], Any],
    images: ImageSet,
    section: TrainSection,
    scratch: Path,
    progress: Progress,
) -> tuple[Any, TrainingState]:
    """Return a float32 model with the weights of its best epoch, and the course of training.

    `build` makes the model (pixels to probabilities). `scratch` holds the checkpoints: called
    again after a kill, training goes on after the last whole epoch and gives the same curve.
    The best epoch is that of the highest validation balanced accuracy.
    """
    tf, keras = import_tensorflow(), import_keras()
    keras.utils.set_random_seed(section.seed)
    # Dropout then draws from a generator whose state can be kept.
    keras.backend.experimental.enable_tf_random_generator()
    model = _build_in_policy(build, section)
    trainee = keras.Model(model.input, model.get_layer("logits").output)
    rows = images.indices("train")
    counts = np.bincount(images.targets[rows], minlength=len(images.labels))
    if (counts == 0).any():
        lacking = [name for name, n in zip(images.labels, counts, strict=True) if n == 0]
        raise DataError(f"the training split has no image of {', '.join(lacking)}.")
    choices = [IMBALANCE.get(name) for name in section.imbalance]
    factors = draw_weights(choices, counts)
    probabilities = None if factors is None else factors[images.targets[rows]]
    if probabilities is not None:
        probabilities = probabilities / probabilities.sum()
    steps = len(rows) // section.batch_size
    optimizer = _make_optimizer(section, steps)
    trainee.compile(
        optimizer=optimizer,
        loss=make_loss(choices, counts, section.label_smoothing),
    )
    optimizer.build(trainee.trainable_variables)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer)
    generators = _list_generators(model)
    state = _restore(checkpoint, generators, scratch)
    writer = tf.summary.create_file_writer(str(scratch / "tensorboard"))
    augment = AUGMENTATIONS.get(section.augment)
    with progress.task("training", section.epochs * max(steps, 1)) as advance:
        advance(state.epoch * steps)
        while not state.is_over(section):
            start = time.perf_counter()
            batches = training_batches(
                images,
                rows,
                probabilities,
                batch_size=section.batch_size,
                augment=augment,
                seed=section.seed,
                epoch=state.epoch,
            )
            ticker = keras.callbacks.LambdaCallback(on_train_batch_end=lambda *_: advance(1))
            history = trainee.fit(batches, epochs=1, verbose=0, callbacks=[ticker])
            if not math.isfinite(float(history.history["loss"][0])):
                raise DataError(
                    f"training diverged in epoch {state.epoch + 1}: the loss is not finite. Lower "
                    f"train.learning_rate (it is {section.learning_rate:g})."
                )
            scores = _validate(model, images, section, scratch, state)
            row = {"epoch": state.epoch, "loss": float(history.history["loss"][0]), **scores}
            state.curves.append(row)
            _log_scalars(tf, writer, row)
            seconds = time.perf_counter() - start
            state.seconds += seconds
            state.generators = [generator.state.numpy().tolist() for generator in generators]
            _save(checkpoint, state, scratch)
            note = (
                f"epoch {state.epoch}: loss {row['loss']:.3f}, validation balanced accuracy "
                f"{row['balanced_accuracy']:.3f} (best {state.best_score:.3f})"
            )
            advance(0, note)
            logger.info("%s, %.0f s", note, seconds)
    writer.close()
    keras.backend.clear_session()
    final = build()
    final.load_weights(str(scratch / "best.weights.h5"))
    return final, state


def _build_in_policy(build: Callable[[], Any], section: TrainSection) -> Any:
    policy = import_keras().mixed_precision
    policy.set_global_policy("mixed_bfloat16" if section.mixed_precision else "float32")
    try:
        return build()
    finally:
        policy.set_global_policy("float32")


def _make_optimizer(section: TrainSection, steps: int) -> Any:
    keras = import_keras()
    rate: Any = section.learning_rate
    if section.schedule == "cosine":
        warmup = int(section.warmup_epochs * steps)
        rate = keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else section.learning_rate,
            max(1, section.epochs * steps - warmup),
            alpha=0.002,
            warmup_target=section.learning_rate if warmup else None,
            warmup_steps=warmup,
        )
    optimizer = keras.optimizers.AdamW(
        rate,
        weight_decay=section.weight_decay,
        use_ema=section.ema > 0,
        ema_momentum=section.ema or 0.99,
        ema_overwrite_frequency=None,
    )
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer


def _validate(
    model: Any,
    images: ImageSet,
    section: TrainSection,
    scratch: Path,
    state: TrainingState,
) -> Mapping[str, float]:
    """Score the weights on validation, keep the best; count the epoch.

    With averaging they are the averages: Keras' fit puts them in the weights' place when it ends.
    """
    rows = images.indices("validation")
    probabilities = predict_probabilities(model, images.pixels, rows, section.batch_size)
    values = compute_metrics(images.targets[rows], probabilities, images.labels)
    scores = {
        name: float(values[name][0])
        for name in ("balanced_accuracy", "accuracy", "macro_auc", "log_loss")
    }
    scores[f"recall[{images.critical}]"] = float(values[f"recall[{images.critical}]"][0])
    state.epoch += 1
    if scores["balanced_accuracy"] > state.best_score:
        state.best_score, state.best_epoch = scores["balanced_accuracy"], state.epoch
        temporary = scratch / "next.weights.h5"
        model.save_weights(str(temporary))
        temporary.replace(scratch / "best.weights.h5")
    return scores


def predict_probabilities(
    model: Any, pixels: NDArray[np.uint8], rows: NDArray[np.int64], batch_size: int
) -> NDArray[np.float32]:
    """Return float32 [len(rows), C], batch by batch, so that memory stays small."""
    parts = [
        np.asarray(model.predict_on_batch(pixels[rows[i : i + batch_size]].astype(np.float32)))
        for i in range(0, len(rows), batch_size)
    ]
    return np.concatenate(parts).astype(np.float32)


def _save(checkpoint: Any, state: TrainingState, scratch: Path) -> None:
    """Write the checkpoint, then the state that names it: a kill in between loses one epoch."""
    checkpoint.write(str(scratch / f"checkpoint-{state.epoch}"))
    temporary = scratch / "state.json.tmp"
    with temporary.open("w") as stream:
        json.dump(asdict(state), stream)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(scratch / "state.json")
    for path in scratch.glob("checkpoint-*"):
        if path.name.split(".")[0] != f"checkpoint-{state.epoch}":
            path.unlink()


def _list_generators(model: Any) -> list[Any]:
    """Return the random generators of the layers that have one, in the model's order."""
    owners = [getattr(layer, "_random_generator", None) for layer in model.layers]
    return [owner._generator for owner in owners if owner is not None]


def _restore(checkpoint: Any, generators: list[Any], scratch: Path) -> TrainingState:
    path = scratch / "state.json"
    if not path.is_file():
        return TrainingState()
    state = TrainingState(**json.loads(path.read_text()))
    checkpoint.read(str(scratch / f"checkpoint-{state.epoch}")).assert_existing_objects_matched()
    for generator, value in zip(generators, state.generators, strict=False):  # older states: none
        generator.reset(value)
    logger.info("training resumes after epoch %d", state.epoch)
    return state


def _log_scalars(tf: Any, writer: Any, row: Mapping[str, float]) -> None:
    """Write scalars as TensorBoard reads them, without needing it installed."""
    kind = tf.compat.v1.SummaryMetadata(
        plugin_data={"plugin_name": "scalars"}, data_class="DATA_CLASS_SCALAR"
    )
    with writer.as_default(step=int(row["epoch"])):
        for name, value in row.items():
            tag = name.replace("[", "_").replace("]", "")
            tf.summary.write(tag, tf.constant(value, tf.float32), metadata=kind)
    writer.flush()
