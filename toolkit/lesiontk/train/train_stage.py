"""Stage: prepared images to a trained float model."""

from __future__ import annotations

import csv
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from lesiontk.backends.keras_backend import save_model
from lesiontk.data.images import open_images
from lesiontk.hashing import hash_file
from lesiontk.models import ARCHITECTURES
from lesiontk.models.architecture import build_model
from lesiontk.recipe import ModelSection, TrainSection
from lesiontk.records import Artefact, EngineSpec
from lesiontk.stage import Context, Stage, StageConfig, StageInfo, StageOutput
from lesiontk.train.checkpoints import read_state
from lesiontk.train.curves import plot_curves
from lesiontk.train.loop import train_model

LEAKY = " Trained and judged on a split that leaks lesions: its figures flatter it."


class TrainConfig(StageConfig):
    """The network and how it is trained."""

    model: ModelSection
    train: TrainSection


class TrainStage(Stage):
    """Produces ``model.keras`` (pixels 0..255 to probabilities), curves and a TensorBoard log."""

    info: ClassVar[StageInfo] = StageInfo(
        name="train",
        version=3,
        accepts={"images": "images"},
        produces="model",
        config=TrainConfig,
        tools=("tensorflow", "tf_keras", "numpy"),
    )

    def external_inputs(self, config: TrainConfig) -> dict[str, str]:
        """The hash of a weights file: the same path may hold other weights tomorrow."""
        path = Path(config.model.weights)
        return {"weights": hash_file(path)} if path.is_file() else {}

    def run(
        self, parents: Mapping[str, Artefact], config: TrainConfig, context: Context
    ) -> StageOutput:
        images = open_images(parents["images"])
        architecture = ARCHITECTURES.get(config.model.architecture)
        weights = config.model.weights
        start = time.perf_counter()

        model, state = train_model(
            lambda: build_model(
                architecture,
                image_size=images.preprocessing.image_size,
                classes=len(images.labels),
                weights="none" if read_state(context.scratch).epoch else weights,
                dropout=config.model.dropout,
            ),
            images,
            config.train,
            context.scratch,
            context.progress,
        )
        spec = EngineSpec(
            labels=images.labels,
            preprocessing=images.preprocessing,
            task=images.task,
            backend="keras",
            precision="float32",
            recipe=context.recipe,
            split_hash=images.split_hash,
            licence=str(parents["images"].facts["licence"]),
            extra={"task_definition": parents["images"].facts["task_definition"]},
        )
        if parents["images"].facts["leaky"]:
            spec = replace(spec, notice=spec.notice + LEAKY)
        save_model(model, spec, context.directory / "model.keras")
        with (context.directory / "curves.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(state.curves[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(state.curves)
        plot_curves(state.curves, state.best_epoch, context.directory / "curves.png")
        shutil.copytree(context.scratch / "tensorboard", context.directory / "tensorboard")
        best = state.curves[state.best_epoch - 1]
        return StageOutput(
            facts={
                "architecture": architecture.name,
                "parameters": int(model.count_params()),
                "labels": list(images.labels),
                "task": images.task,
                "critical": images.critical,
                "preprocessing": dict(parents["images"].facts["preprocessing"]),
                "split_hash": images.split_hash,
                "epochs": state.epoch,
                "best_epoch": state.best_epoch,
                "validation": {
                    "n": len(images.indices("validation")),
                    **{name: value for name, value in best.items() if name != "epoch"},
                },
            },
            auxiliary=("tensorboard", "curves.png"),
            earlier_seconds=max(0.0, state.seconds - (time.perf_counter() - start)),
        )
