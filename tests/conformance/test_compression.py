"""What compression does to every registered architecture, on models that tell pictures apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.backends.keras.backend import load_model
from lesiontk.compress.batchnorm_folding import fold_batchnorm
from lesiontk.compress.block_importance import remove_blocks
from lesiontk.compress.channel_budget import choose_channels, macs_of
from lesiontk.compress.channel_graph import derive_channels
from lesiontk.compress.channel_statistics import collect_channel_statistics
from lesiontk.compress.importance import CRITERIA, score_channels
from lesiontk.compress.keras_layers import read_layers, remove_channels, with_input_size
from lesiontk.compress.residual_blocks import find_blocks
from lesiontk.errors import DataError
from lesiontk.models import ARCHITECTURES
from lesiontk.recipe import parse_recipe
from lesiontk.records import MODEL_FILE, Artefact
from lesiontk.stage import Context
from lesiontk.stages.equalize import equalize_model
from lesiontk.stages.parent_predictions import (
    SOFT_TARGETS,
    ParentPredictionsConfig,
    ParentPredictionsStage,
)
from lesiontk.stages.prune import PruneConfig, PruneStage
from lesiontk.store import Store
from lesiontk.system.frameworks import import_keras
from lesiontk.workflow.plan import plan_recipe
from lesiontk.workflow.runner import build_step
from tests.artefacts import make_artefact
from tests.compress.silent_channels import draw_channels, silence
from tests.conformance.cases import each_architecture
from tests.conformance.fitted_models import FittedParent, settle_statistics
from tests.model_facts import make_facts

TOLERANCE = 1e-4
"""Of how far logits spread over the pictures; rounding differs in what is computed otherwise."""
Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Network:
    """A fitted model of an architecture, and pictures."""

    name: str
    model: Any
    pixels: NDArray[np.uint8]
    targets: NDArray[np.int64]

    def logits(self, model: Any) -> Logits:
        """What a model says of the pictures before the softmax, [N, C]."""
        part = import_keras().Model(model.input, model.get_layer("logits").output)
        return np.asarray(part(self.pixels.astype(np.float32)))


@pytest.fixture(
    scope="module",
    params=each_architecture(engines=True),
)
def network(
    request: pytest.FixtureRequest, fitted_parent: Callable[[str], FittedParent]
) -> Network:
    parent = fitted_parent(request.param)
    model = load_model(parent.convert("model"))
    return Network(request.param, model, parent.pictures[:14], parent.targets[:14])


@pytest.fixture(autouse=True)
def unchanged(network: Network) -> Iterator[None]:
    """Each test finds the weights as they were."""
    weights = network.model.get_weights()
    yield
    network.model.set_weights(weights)


def distance(received: Logits, expected: Logits) -> float:
    """The greatest difference, in standard deviations of the logits over the pictures."""
    spread = float((expected - expected.mean(axis=0)).std())
    return float(np.abs(received - expected).max()) / spread


def test_channels_that_are_silent_can_go_and_others_cannot(network: Network) -> None:
    model = network.model
    graph = derive_channels(read_layers(model))
    removed = draw_channels(graph, 5, share=0.5)
    loud = network.logits(remove_channels(model, graph, removed))
    assert distance(loud, network.logits(model)) > 0.5
    silence(model, graph, removed)
    settle_statistics(model, network.pixels.astype(np.float32))
    smaller = remove_channels(model, graph, removed)
    assert distance(network.logits(smaller), network.logits(model)) < TOLERANCE
    assert smaller.count_params() < 0.5 * model.count_params()
    kept = {layer.name: layer.channels for layer in read_layers(smaller)}
    assert (kept["image"], kept["logits"]) == (3, 7)


def test_a_residual_block_that_adds_nothing_can_go_and_others_cannot(network: Network) -> None:
    model, layers = network.model, read_layers(network.model)
    blocks = find_blocks(layers)
    assert bool(blocks) == any(layer.kind == "Add" for layer in layers)
    if not blocks:
        return
    block = blocks[len(blocks) // 2]
    loud = network.logits(remove_blocks(model, [block]))
    assert distance(loud, network.logits(model)) > 100 * TOLERANCE
    last = [model.get_layer(n) for n in block.branch if model.get_layer(n).get_weights()][-1]
    factor, *others = last.get_weights()  # of a convolution the bias, of a normalization three
    nothing = [np.zeros_like(array) for array in (factor, *others[:1])]
    last.set_weights([*nothing, *others[1:]])
    shorter = remove_blocks(model, [block])
    assert distance(network.logits(shorter), network.logits(model)) < TOLERANCE
    assert macs_of(read_layers(shorter)) < macs_of(layers)


def test_smaller_images_are_taken_with_the_same_weights(network: Network) -> None:
    size = ARCHITECTURES.get(network.name).min_image_size
    larger = with_input_size(network.model, 2 * size)
    back = with_input_size(larger, size)
    assert larger.input_shape == (None, 2 * size, 2 * size, 3)
    assert macs_of(read_layers(back)) < 0.6 * macs_of(read_layers(larger))
    if network.model.input_shape[1] == size:
        np.testing.assert_array_equal(network.logits(back), network.logits(network.model))


def test_normalization_is_folded(network: Network) -> None:
    folded, expected = fold_batchnorm(network.model), network.logits(network.model)
    kinds, before = ([layer.kind for layer in read_layers(m)] for m in (folded, network.model))
    assert "BatchNormalization" not in kinds
    replaced = kinds.count("DepthwiseConv2D") - before.count("DepthwiseConv2D")
    assert (replaced > 0) == (network.name == "resnet152v2")  # its normalizations stand before
    assert distance(network.logits(folded), expected) < TOLERANCE
    if "BatchNormalization" in before:
        forget_a_shift(folded, network.model)
        assert distance(network.logits(folded), expected) > 100 * TOLERANCE


def forget_a_shift(folded: Any, model: Any) -> None:
    """The twin of a fold: one layer in the middle without what its normalization adds."""
    biased = [
        layer
        for layer in folded.layers
        if layer.name != "logits"
        and len(layer.get_weights()) == 2
        and len(model.get_layer(layer.name).get_weights()) != 2
    ]
    layer = biased[len(biased) // 2]
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel, np.zeros_like(bias)])


def test_equalized_layers_answer_alike(network: Network) -> None:
    folded, expected = fold_batchnorm(network.model), network.logits(network.model)
    pairs = equalize_model(folded)
    assert len(pairs) >= 2  # of efficientnet_lite0 those without ReLU6 between
    assert distance(network.logits(folded), expected) < TOLERANCE
    kernel, *bias = folded.get_layer(pairs[0][0]).get_weights()
    folded.get_layer(pairs[0][0]).set_weights([1.5 * kernel, *bias])  # one side of a pair alone
    assert distance(network.logits(folded), expected) > 100 * TOLERANCE


def test_every_criterion_finds_channels_to_remove(network: Network) -> None:
    graph = derive_channels(read_layers(network.model))
    channel_statistics = collect_channel_statistics(
        network.model, graph.layers, network.pixels, network.targets
    )
    limit = 0.5 * macs_of(graph.layers)
    for criterion in CRITERIA:
        if (network.name, criterion) == ("vgg16", "batchnorm_scale"):
            with pytest.raises(DataError, match="batchnorm_scale ranks no channel: none of the"):
                score_channels(graph, channel_statistics, criterion)
            continue
        scores = score_channels(graph, channel_statistics, criterion)
        removed = choose_channels(graph, scores, limit)
        assert 0.8 * limit < macs_of(graph.narrow(removed)) <= limit, criterion


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    synthetic = {"lesions": 42, "image_size": 32, "seed": 3}
    data = {"source": "synthetic", "image_size": 32, "synthetic": synthetic}
    plan = plan_recipe(parse_recipe({"name": "tiny", "data": data}))
    return build_step(plan, "images", Store(tmp_path_factory.mktemp("images")), {})


def test_what_is_left_recovers(network: Network, images: Artefact, tmp_path: Path) -> None:
    """The stage as a recipe runs it, taught by the whole network, for one short epoch."""
    if network.name == "resnet152v2":
        pytest.skip("its training takes minutes to build; its blocks are tested above")
    facts = make_facts(architecture=network.name, recalls={"mel": 0.5})
    network.model.save(str(tmp_path / MODEL_FILE))
    parent = make_artefact(tmp_path, "model", facts, [MODEL_FILE])
    recover = {"epochs": 1, "batch_size": 32, "augment": "none", "learning_rate": 1e-3}
    config = PruneConfig.model_validate({"keep_macs": 0.5, "images": 16, "recover": recover})
    parents = {"model": parent, "images": images}
    asking = Context(tmp_path / "soft_targets", tmp_path / "scratch")
    context = Context(tmp_path / "out", tmp_path / "scratch")
    for folder in (asking.directory, context.directory, context.scratch):
        folder.mkdir()
    ParentPredictionsStage().run(parents, ParentPredictionsConfig(), asking)
    soft_targets = make_artefact(asking.directory, "soft_targets", files=[SOFT_TARGETS])
    output = PruneStage().run({**parents, "soft_targets": soft_targets}, config, context)
    pruned = output.facts["change"]
    assert pruned["macs"][1] <= 0.5 * pruned["macs"][0]
    assert output.measured == {}
    assert output.facts["validation"]["metrics"]["recall[mel]"] >= 0.5
    made = load_model(context.directory / MODEL_FILE)
    assert macs_of(read_layers(made)) == pruned["macs"][1]
    assert np.isfinite(network.logits(made)).all()
