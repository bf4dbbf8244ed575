"""Trains a tiny network, as one worker of several or alone in a process of its own:

    python -m tests.train.train_process SCRATCH '{"epochs": 2}' [SCRATCH OPTIONS ...]

The options are keys of the train section, and `images`, how many there are, `devices`, how many
logical CPUs to mirror on, `steps`, after how many to break off, `dropout` and `normalized`, what
the network has. Says ``step`` on standard output after each step; leaves ``result.json`` and
``result.npz`` in the scratch folder.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lesiontk.errors import LesionTKError
from lesiontk.models.architecture import Architecture, Normalization, build_model
from lesiontk.progress import Progress
from lesiontk.system.frameworks import import_keras, import_tensorflow
from lesiontk.train.loop import train_model
from tests.train.colours import SIZE, KilledError, KillingProgress, make_images, make_section


class TellingProgress:
    """Says each step, so that a test knows when to kill."""

    @contextmanager
    def task(self, description: str, total: int | None) -> Iterator[Callable[..., None]]:
        def advance(steps: int, note: str = "") -> None:
            sys.stdout.write("step\n" * steps)
            sys.stdout.flush()

        yield advance


def make_build(*, normalized: bool = False, dropout: float = 0.0) -> Callable[[int | None], Any]:
    """Return a function that makes one convolution and a classifier."""

    def body(x: Any) -> Any:
        layers = import_keras().layers
        x = layers.Conv2D(8, 3, 2, name="conv")(x)
        if normalized:
            x = layers.BatchNormalization(momentum=0.8, name="bn")(x)
        return layers.ReLU(name="relu")(x)

    architecture = Architecture("tiny", SIZE, Normalization(1 / 128, (-1.0,) * 3), body)
    return lambda size: build_model(architecture, image_size=size, classes=3, dropout=dropout)


def train_here(scratch: Path, options: dict[str, Any]) -> None:
    """Train in this process and write down what came of it."""
    scratch.mkdir(exist_ok=True)
    images = make_images(count=options.pop("images", 96))
    devices = [f"CPU:{number}" for number in range(options.pop("devices", 0))]
    network = {name: options.pop(name) for name in ("normalized", "dropout") if name in options}
    steps = options.pop("steps", None)
    progress: Progress = TellingProgress() if steps is None else KillingProgress(steps)
    build, section = make_build(**network), make_section(**options)
    model, state = train_model(build, images, section, scratch, progress, devices)
    np.savez(scratch / "result.npz", *model.get_weights())
    (scratch / "result.json").write_text(json.dumps(state.curves))


def split_processor(parts: int) -> None:
    """Make logical CPUs; they must be there before TensorFlow works."""
    config = import_tensorflow().config
    logical = [config.LogicalDeviceConfiguration()] * parts
    config.set_logical_device_configuration(config.list_physical_devices("CPU")[0], logical)


if __name__ == "__main__":
    runs = [json.loads(text) for text in sys.argv[2::2]]
    if any("devices" in options for options in runs):
        split_processor(max(options.get("devices", 0) for options in runs))
    try:
        for folder, options in zip(sys.argv[1::2], runs, strict=True):
            with contextlib.suppress(KilledError):
                train_here(Path(folder), options)
    except LesionTKError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(error.exit_code)
