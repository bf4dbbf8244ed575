"""Train the tests' network and write its weights: python -m tests.tiny.make_weights"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from lesiontk.backends.keras.backend import load_model
from lesiontk.backends.reference_outputs import engine_file
from lesiontk.records import Artefact
from lesiontk.store import Store
from lesiontk.workflow.train import train_recipe
from tests.tiny.network import NAME, WEIGHTS, registered
from tests.tiny.recipe import TRAIN, tiny_recipe

EPOCHS = 40


def train(folder: Path) -> Artefact:
    """Train from random weights, on the data and the split of the tests."""
    section = {**TRAIN, "epochs": EPOCHS, "learning_rate": 0.003, "augment": "dermoscopy"}
    return train_recipe(Store(folder), tiny_recipe(model={"architecture": NAME}, train=section))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, registered():
        trained = train(Path(folder))
        arrays = load_model(engine_file(trained)).get_weights()
        np.savez(WEIGHTS, **{str(number): array for number, array in enumerate(arrays)})
        print(trained.facts["validation"])  # noqa: T201


if __name__ == "__main__":
    main()
