"""The state of an unfinished training, and how it is resumed."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lesiontk.errors import DataError
from lesiontk.files.strict_json import read_json
from lesiontk.recipe import TrainSection
from lesiontk.records import ValidationScores


@dataclass(slots=True)
class TrainingState:
    """What a resume needs besides the checkpoint of the same epoch.

    `generators` contains the random state of each dropout layer, which Keras omits from
    checkpoints. `done` is set once every worker has the state of the last epoch. `keep_recalls` are
    the recalls, by label, at which epochs are compared, `shifts` the logit bias of the best epoch.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_score: float = -math.inf
    seconds: float = 0.0
    curves: list[dict[str, float]] = field(default_factory=list)
    generators: list[list[int]] = field(default_factory=list)
    done: bool = False
    keep_recalls: dict[str, float] = field(default_factory=dict)
    shifts: list[float] = field(default_factory=list)

    def best_scores(self, n: int) -> ValidationScores:
        """Return the scores of the best epoch on the `n` validation images."""
        row = self.curves[self.best_epoch - 1]
        metrics = {name: value for name, value in row.items() if name not in ("epoch", "loss")}
        return ValidationScores(n, metrics)

    def is_over(self, section: TrainSection) -> bool:
        """Return whether the last epoch is reached or patience is used up."""
        return self.epoch >= section.epochs or self.epoch - self.best_epoch >= section.patience


def save_checkpoint(checkpoint: Any, state: TrainingState, scratch: Path, *, kept: int) -> None:
    """Write the checkpoint, then the state that refers to it, and delete all but the last `kept`.

    A kill between the two loses one epoch.
    """
    checkpoint.write(str(scratch / f"checkpoint-{state.epoch}"))
    save_state(state, scratch)
    _delete(scratch, [epoch for epoch in _list_epochs(scratch) if epoch <= state.epoch - kept])


def save_state(state: TrainingState, scratch: Path) -> None:
    """Write the state of its epoch atomically."""
    temporary = scratch / "state.tmp"
    with temporary.open("w") as stream:
        json.dump(asdict(state), stream)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(scratch / f"state-{state.epoch}.json")


def read_state(scratch: Path) -> TrainingState:
    """Return the last saved state, or that of a training before its first epoch.

    Raises `DataError` for a state that was edited or damaged.
    """
    epochs = _list_epochs(scratch)
    if not epochs:
        return TrainingState()
    path = scratch / f"state-{epochs[-1]}.json"
    # Before the first epoch the best score is minus infinity.
    document = read_json(path, "the state of the unfinished training", finite=False)
    try:
        return TrainingState(**document)
    except TypeError as error:
        raise DataError(
            f"{path} is not a state of an unfinished training; start over with --restart."
        ) from error


def forget_after(epoch: int, scratch: Path) -> None:
    """Delete the states and checkpoints of later epochs."""
    _delete(scratch, [later for later in _list_epochs(scratch) if later > epoch])


def restore_checkpoint(checkpoint: Any, scratch: Path, state: TrainingState) -> None:
    """Restore the weights of the checkpoint, and the optimizer of their phase if given."""
    path = str(scratch / f"checkpoint-{state.epoch}")
    checkpoint.read(path).assert_existing_objects_matched().expect_partial()


def list_generators(model: Any) -> list[Any]:
    """Return the random generators of the layers that have one, in the model's order."""
    owners = [getattr(layer, "_random_generator", None) for layer in model.layers]
    return [owner._generator for owner in owners if owner is not None]


def _list_epochs(scratch: Path) -> list[int]:
    numbers = (path.stem.partition("-")[2] for path in scratch.glob("state-*.json"))
    return sorted(int(number) for number in numbers if number.isascii() and number.isdigit())


def _delete(scratch: Path, epochs: list[int]) -> None:
    """Delete state, then checkpoint: without its state a checkpoint is never read."""
    for epoch in epochs:
        (scratch / f"state-{epoch}.json").unlink()
        for path in scratch.glob(f"checkpoint-{epoch}.*"):
            path.unlink()
