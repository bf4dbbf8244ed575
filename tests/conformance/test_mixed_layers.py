"""Single layers that stay in float while the others are quantized, on every architecture."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lesiontk.backends import BACKENDS, open_engine
from tests.conformance.cases import each_architecture
from tests.conformance.fitted_models import SPEC, FittedParent

MIXED = [
    name
    for name, backend in BACKENDS.items()
    if any(info.mixed for info in backend.info.precisions.values())
]


def convert(
    parent: FittedParent, backend: str, kept: Collection[str], out: Path
) -> tuple[Path, tuple[str, ...]]:
    """Return the engine with these layers in float, and the operators that it has in float."""
    info = BACKENDS.get(backend).info.precisions["mixed"]
    plan = replace(parent.plan, float_layers=frozenset(kept))
    spec = replace(SPEC, backend=backend, precision="mixed")
    source = parent.convert(info.derived_from)
    record = BACKENDS.get(backend)().convert(source, "mixed", spec, plan, out)
    return out / record.file, record.float_operators


def layers_of(parent: FittedParent, backend: str) -> tuple[str, ...]:
    info = BACKENDS.get(backend).info.precisions["mixed"]
    return BACKENDS.get(backend)().list_layers(parent.convert(info.derived_from))


def test_all_that_quantize_offer_it() -> None:
    assert MIXED == ["tflite", "onnx", "tensorrt"]


@pytest.mark.parametrize("backend", MIXED)
@pytest.mark.parametrize("architecture", each_architecture(engines=True))
def test_with_all_layers_in_float_it_answers_as_its_parent(
    architecture: str,
    backend: str,
    fitted_parent: Callable[[str], FittedParent],
    tmp_path: Path,
) -> None:
    parent = fitted_parent(architecture)
    layers = layers_of(parent, backend)
    assert len(layers) == len(set(layers)) > 5
    path, floating = convert(parent, backend, layers, tmp_path)
    assert len(floating) >= len(layers)
    with open_engine(path) as engine:
        received = engine.predict(parent.pictures[:8])
    kept_in = BACKENDS.get(backend).info.precisions["mixed"].mixed
    tolerance = {"float32": 2e-4, "float16": 2e-2}[kept_in]
    np.testing.assert_allclose(received, parent.outputs[:8], atol=tolerance)


@pytest.mark.parametrize("backend", MIXED)
@pytest.mark.parametrize(
    "architecture", each_architecture(but=["resnet152v2", "vgg16"], engines=True)
)
def test_a_layer_in_float_is_in_float_and_the_others_are_not(
    architecture: str,
    backend: str,
    fitted_parent: Callable[[str], FittedParent],
    tmp_path: Path,
) -> None:
    parent = fitted_parent(architecture)
    layers = layers_of(parent, backend)
    kept = {layers[0], layers[len(layers) // 2], layers[-1]}
    _, none_kept = convert(parent, backend, (), tmp_path)
    path, floating = convert(parent, backend, kept, tmp_path)
    more = set(floating) - set(none_kept)
    assert len(kept) <= len(more) <= 3 * len(kept)
    structure = BACKENDS.get(backend)().inspect(path)
    assert structure.operators["int8"] > 0
    info = BACKENDS.get(backend).info.precisions["mixed"]
    assert structure.operators[info.mixed] >= len(kept)
    assert 0.2 < structure.int8_weight_share < 1


@pytest.mark.parametrize("backend", MIXED)
def test_a_layer_that_is_none_is_refused(
    backend: str, fitted_parent: Callable[[str], FittedParent], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="no layer 'another'"):
        convert(fitted_parent("cnn"), backend, ["another"], tmp_path)
