"""Stage: cross-layer equalization of weight ranges before quantization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lesiontk.backends.keras.backend import load_model
from lesiontk.compress.batchnorm_folding import fold_batchnorm
from lesiontk.compress.equalization import equalize, find_pairs
from lesiontk.compress.keras_layers import read_layers
from lesiontk.compress.model_history import derive_model
from lesiontk.data.images import open_images
from lesiontk.document import Record
from lesiontk.errors import DataError
from lesiontk.records import MODEL_FILE, Artefact, ModelFacts, ModelStep
from lesiontk.stage import Context, Needs, StageConfig, StageOutput
from lesiontk.stages.model_artefact import write_untrained
from lesiontk.technique import EVEN_RANGES, ZEROS, Technique, TechniqueInfo
from lesiontk.train.loop import predict_probabilities

HOMOGENEOUS = ("linear", "relu")
TOLERANCE = 1e-3
COMPARED = 64


class EqualizeConfig(StageConfig):
    """The technique has no options."""


@dataclass(frozen=True, slots=True)
class Equalization(Record):
    """The number of equalized `pairs` of layers, and the largest difference of an output."""

    pairs: int
    greatest_difference: float


class EqualizeStage(Technique):
    """Produces a float ``model.keras`` without BatchNormalization, equivalent to its parent."""

    info: ClassVar[TechniqueInfo] = TechniqueInfo(
        name="equalize",
        version=3,
        accepts={"model": "model", "images": "images"},
        config=EqualizeConfig,
        tools=("tensorflow", "tf_keras", "numpy"),
        holds=frozenset({ZEROS}),
        leaves=frozenset({EVEN_RANGES}),
        why_last="normalization is folded and ranges are equalized for the current weights; "
        "training or pruning would undo this",
        help="""Equalize the weight ranges of MODEL across layers (CLE) before int8.

        Its outputs stay the same; its int8 engines may lose less accuracy. Only layers
        with ReLU, pooling or padding between them can be equalized.""",
        needs=Needs(),
    )

    def run(
        self, parents: Mapping[str, Artefact], config: EqualizeConfig, context: Context
    ) -> StageOutput:
        images = open_images(parents["images"])
        parent = load_model(parents["model"].file(MODEL_FILE))
        model = fold_batchnorm(parent)
        pairs = equalize_model(model)
        rows = images.indices("validation")[:COMPARED]
        expected, received = (
            predict_probabilities(m, images.pixels, rows, 32) for m in (parent, model)
        )
        difference = float(np.abs(expected - received).max())
        if difference > TOLERANCE:
            raise DataError(
                f"the equalized model differs by {difference:.2g} from its parent on validation; "
                f"expected at most {TOLERANCE}. Leave equalize out for this model."
            )
        return write_untrained(
            model,
            images,
            parents["images"],
            context,
            derive_model(
                parents["model"].read_facts(ModelFacts),
                self.info.name,
                Equalization(len(pairs), difference),
            ),
        )

    def describe(self, step: ModelStep) -> str:
        """Return the number of equalized pairs of layers, as a sentence."""
        pairs = step.read_change(Equalization).pairs
        return f"{pairs} pairs of layers equalized, normalization folded in"

    def advise(self, step: ModelStep) -> str:
        """Return the largest difference of its outputs from the parent's, as a sentence."""
        difference = step.read_change(Equalization).greatest_difference
        return f"its outputs differ by at most {difference:.1e}"


def equalize_model(model: Any) -> list[tuple[str, str]]:
    """Equalize a model without BatchNormalization in place, and return the pairs.

    Raises `DataError` if no two layers can be scaled against each other, for example with ReLU6
    between them.
    """
    layers = read_layers(model)
    pairs = find_pairs(layers, lambda name: is_homogeneous(model.get_layer(name)))
    if not pairs:
        raise DataError(
            "no two layers of the model can be equalized; expected only ReLU, pooling or padding "
            "between two layers. A bounded activation, such as ReLU6, does not scale."
        )
    names = {name for pair in pairs for name in pair}
    weights = {name: model.get_layer(name).get_weights() for name in names}
    for name, values in equalize(layers, pairs, weights).items():
        model.get_layer(name).set_weights(values)
    return pairs


def is_homogeneous(layer: Any) -> bool:
    """Return whether f(s x) = s f(x) for s > 0 holds for a layer's activation."""
    config = layer.get_config()
    kind = type(layer).__name__
    if kind == "ReLU":
        return config["max_value"] is None and not config["threshold"]
    if kind == "LeakyReLU":
        return True
    return config.get("activation") in HOMOGENEOUS
