"""Stage: quantization-aware training, fine-tuning with fake quantization."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from lesiontk.backends.keras.backend import load_model
from lesiontk.backends.learned_ranges import LEARNED, write_learned
from lesiontk.compress.activation_splitting import split_activations
from lesiontk.compress.batchnorm_folding import find_folds, find_folds_ahead, fold_batchnorm
from lesiontk.compress.keras_layers import read_layers
from lesiontk.compress.kernel_constraint import (
    KernelStructure,
    find_ties,
    find_zeros,
    list_constrained,
)
from lesiontk.compress.layers import Layer
from lesiontk.compress.model_history import derive_model, recalls_to_keep
from lesiontk.compress.quantization_aware import (
    Ranges,
    Scheme,
    find_moves,
    plan_rounding,
    quantize_aware,
    strip_quantization,
)
from lesiontk.data.images import open_images
from lesiontk.document import Record
from lesiontk.errors import DataError
from lesiontk.files.whole_files import write_whole
from lesiontk.recipe import TrainSection
from lesiontk.records import MODEL_FILE, Artefact, ModelFacts, ModelStep, ValidationScores
from lesiontk.report.wording import name_backend
from lesiontk.stage import Context, StageConfig, StageOutput
from lesiontk.stages.constrained_training import read_kernels
from lesiontk.stages.fake_quant_outputs import write_fake_quant_outputs
from lesiontk.stages.model_artefact import write_outcome
from lesiontk.stages.parent_predictions import DistillRule, read_soft_targets
from lesiontk.system.frameworks import import_keras
from lesiontk.technique import (
    AS_TRAINED,
    EVEN_RANGES,
    LEARNED_RANGES,
    SHARED_VALUES,
    ZEROS,
    Technique,
    TechniqueInfo,
    list_left,
)
from lesiontk.train.loop import predict_probabilities, score_model, train_model


class QatConfig(StageConfig):
    """The rounding scheme, and the training."""

    scheme: Scheme = Field("tflite", description="tflite (also ONNX), or tensorrt")
    images: int = Field(
        210,
        ge=8,
        description="training images for the initial ranges, and to compare engines with the "
        "fake-quantized model",
    )
    distill: DistillRule | None = DistillRule()
    train: TrainSection = TrainSection(
        epochs=2, learning_rate=5e-5, warmup_epochs=0.1, weight_decay=0.0
    )

    @model_validator(mode="after")
    def _check_training(self) -> QatConfig:
        not_allowed = [
            name for name in ("grow", "head_epochs", "mixed_precision") if getattr(self.train, name)
        ]
        if not_allowed:
            raise ValueError(
                f"train does not accept {not_allowed[0]}: the conditions of quantization are fixed"
            )
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedRounding(Record):
    """The rounding scheme of a model's training, and the kernel structures that it preserved.

    `validation_before` are the scores of the fake-quantized model before that training.
    """

    scheme: Scheme
    rounded_tensors: int
    keeps: tuple[str, ...]
    validation_before: ValidationScores


class QatStage(Technique):
    """Produces a float ``model.keras`` without BatchNormalization, and its learned ranges.

    Any back end then quantizes it with these ranges instead of measured ones.
    """

    info: ClassVar[TechniqueInfo] = TechniqueInfo(
        name="qat",
        version=9,
        accepts={"model": "model", "images": "images", "soft_targets": "soft_targets"},
        config=QatConfig,
        tools=("tensorflow", "tf_keras", "tensorflow-model-optimization", "numpy"),
        holds=frozenset({ZEROS, SHARED_VALUES, EVEN_RANGES}),
        leaves=frozenset({LEARNED_RANGES}),
        why_last="the learned ranges and rounding belong to the current weights and channels; "
        "they are invalid when these change",
        inherits={"train": AS_TRAINED},
        help="""Train MODEL with the rounding of int8 in the loop (quantization-aware training).

        `lesiontk quantize --int8` then makes its engines with the learned ranges. The
        scheme tflite rounds like TFLite and ONNX Runtime, tensorrt like TensorRT. --set
        accepts the technique's keys, such as train.learning_rate=0.0001.""",
        options={"scheme": "The rounding scheme; default: tflite.", "train.epochs": "Default 2."},
    )

    def run(
        self, parents: Mapping[str, Artefact], config: QatConfig, context: Context
    ) -> StageOutput:
        started = time.perf_counter()
        images = open_images(parents["images"])
        soft_targets = read_soft_targets(parents, config.distill)
        facts = parents["model"].read_facts(ModelFacts)
        left = list_left(facts.line)
        kept = [structure for structure in (ZEROS, SHARED_VALUES) if structure in left]
        parent = load_model(parents["model"].file(MODEL_FILE))
        if SHARED_VALUES in kept:
            check_ties(read_layers(parent))
        folded = split_activations(fold_batchnorm(parent))
        layers = read_layers(folded)
        structures = find_structures(folded, layers, kept)
        rows = images.draw_stratified("train", config.images, seed=config.train.seed)
        ranges = measure_initial_ranges(
            folded, layers, images.pixels[rows], config.scheme, context.scratch
        )

        def build(size: int | None) -> Any:
            return quantize_aware(folded, layers, ranges, config.scheme, structures)

        before = score_model(build(None), images)
        aware, state = train_model(
            build,
            images,
            config.train,
            context.scratch,
            context.progress,
            soft_targets=soft_targets,
            keep_recalls=recalls_to_keep(facts, self.info.name),
        )
        outputs = predict_probabilities(aware, images.pixels, rows, 32)
        write_fake_quant_outputs(rows, outputs, context.directory)
        learned = strip_quantization(aware, folded, layers, structures)
        write_learned(context.directory / LEARNED, learned, find_moves(layers, learned))
        return write_outcome(
            folded,
            state,
            images,
            parents["images"],
            context,
            derive_model(
                facts,
                self.info.name,
                LearnedRounding(
                    scheme=config.scheme,
                    rounded_tensors=len(learned),
                    keeps=tuple(kept),
                    validation_before=before,
                ),
            ),
            started=started,
        )

    def describe(self, step: ModelStep) -> str:
        """Return the rounding scheme, the number of tensors and the preserved structures, as a
        sentence."""
        qat = step.read_change(LearnedRounding)
        keeps = f"; {' and '.join(qat.keeps)} are preserved" if qat.keeps else ""
        return (
            f"trained with the rounding of {name_backend(qat.scheme)} in "
            f"{qat.rounded_tensors} tensors{keeps}"
        )

    def advise(self, step: ModelStep) -> str:
        """Return the score of the fake-quantized model before the training, as a sentence."""
        before = step.read_change(LearnedRounding).validation_before.balanced_accuracy
        return f"fake-quantized before this training, validation balanced accuracy {before:.3f}"


def check_ties(layers: tuple[Layer, ...]) -> None:
    """Raise `DataError` for a clustered layer whose equal weights folding would separate.

    A normalization before it scales each of its inputs individually.
    """
    for dense, normalization in find_folds_ahead(layers, find_folds(layers)).items():
        raise DataError(
            f"layer {dense!r} is clustered, and folding {normalization!r} (BatchNormalization) "
            "into it would make equal weights different. Leave cluster out "
            "for this model."
        )


def find_structures(
    model: Any, layers: tuple[Layer, ...], kept: Sequence[str]
) -> dict[str, KernelStructure]:
    """Return layer -> the structure of its kernel, of a sparse or clustered model."""
    if not kept:
        return {}
    find = find_ties if SHARED_VALUES in kept else find_zeros
    return {
        name: find(kernel) for name, kernel in read_kernels(model, list_constrained(layers)).items()
    }


def measure_initial_ranges(
    model: Any, layers: tuple[Layer, ...], pixels: NDArray[np.uint8], scheme: Scheme, scratch: Path
) -> Ranges:
    """Return the extremes of each quantized output on these images; stored for a resumed run."""
    kept = scratch / "ranges.json"
    if kept.is_file():
        return {name: (low, high) for name, (low, high) in json.loads(kept.read_text()).items()}
    names = [n for n, rounding in plan_rounding(layers, scheme).items() if rounding.output]
    parts = import_keras().Model(model.input, [model.get_layer(name).output for name in names])
    ranges = dict.fromkeys(names, (0.0, 0.0))
    for start in range(0, len(pixels), 16):
        few = pixels[start : start + 16].astype(np.float32)
        for name, values in zip(names, parts.predict_on_batch(few), strict=True):
            low, high = ranges[name]
            ranges[name] = min(low, float(values.min())), max(high, float(values.max()))
    write_whole({kept: json.dumps(ranges).encode()})
    return ranges
