"""The stage shows the images that matter, by the model's own evidence, and nothing by chance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lesiontk.backends.keras.backend import KerasEngine
from lesiontk.data.images import ImageSet
from lesiontk.errors import DataError
from lesiontk.explain.explanation import DOCUMENT, Explanation
from lesiontk.explain.overlay import EDGE
from lesiontk.records import Artefact
from lesiontk.stages.explain import ExplainConfig, ExplainStage
from lesiontk.store import Store
from tests.untrained import EvaluationConfig, MadeUpEvaluation, ModelConfig, UntrainedModel, make_up


@pytest.fixture(scope="module")
def parents(prepared: Artefact, images: ImageSet, shared_store: Store) -> dict[str, Artefact]:
    config = ModelConfig(split_hash=images.split_hash)
    model = shared_store.build(UntrainedModel(), config, {"images": prepared})
    return {"model": model, "images": prepared}


def explain(store: Store, parents: Mapping[str, Artefact], images: int) -> Artefact:
    return store.build(ExplainStage(), ExplainConfig(images=images), parents)


def pictures(artefact: Artefact) -> dict[str, NDArray[np.uint8]]:
    return {path.name: np.asarray(Image.open(path)) for path in sorted(artefact.path.glob("*.jpg"))}


def test_the_images_are_chosen_by_the_evaluation(
    shared_store: Store, prepared: Artefact, images: ImageSet, parents: dict[str, Artefact]
) -> None:
    labels = [images.labels[images.targets[row]] for row in images.indices("test")]
    melanoma, nevus, keratosis = (labels.index(label) for label in ("mel", "nv", "bkl"))
    doubts = {nevus: ("mel", 0.6), melanoma: ("nv", 0.5), keratosis: ("df", 0.3)}
    evaluation = make_up(shared_store, prepared, images, doubts)
    made = explain(shared_store, {**parents, "evaluation": evaluation}, 3)
    found = made.read(DOCUMENT, Explanation)
    ids = [images.image_ids[row] for row in images.indices("test")]
    assert [
        (i.image_id, i.reason, i.true_label, i.predicted.label, i.rival.label) for i in found.images
    ] == [
        (ids[melanoma], "critical_missed", "mel", "nv", "mel"),
        (ids[nevus], "wrong", "nv", "mel", "nv"),
        (ids[keratosis], "unsure", "bkl", "bkl", "df"),
    ]
    assert found.images[0].probabilities["nv"] == 0.5
    assert list(found.images[0].probabilities) == list(images.labels)
    assert (found.judged, found.wrong) == (len(labels), 2)
    assert (found.critical, found.critical_judged, found.critical_missed) == (
        "mel", labels.count("mel"), 1,
    )  # fmt: skip
    assert made.facts["critical_missed"] == 1
    assert made.facts["grid"] == list(found.grid)


def test_without_an_evaluation_the_model_itself_is_asked(
    shared_store: Store, images: ImageSet, parents: dict[str, Artefact]
) -> None:
    found = explain(shared_store, parents, 96).read(DOCUMENT, Explanation)
    rows = images.indices("test")
    expected = KerasEngine(parents["model"].file("model.keras")).predict(images.pixels[rows])
    assert len(found.images) == len(rows)
    for image in found.images:
        row = [images.image_ids[row] for row in rows].index(image.image_id)
        np.testing.assert_allclose(list(image.probabilities.values()), expected[row], atol=1e-6)
        assert image.predicted.label == images.labels[expected[row].argmax()]
        assert image.group == images.groups[rows[row]]


def test_each_image_is_shown_beside_two_heatmaps_of_it(
    shared_store: Store, images: ImageSet, parents: dict[str, Artefact]
) -> None:
    made = explain(shared_store, parents, 4)
    found, shown = made.read(DOCUMENT, Explanation), pictures(made)
    files = [(i.original, i.predicted.file, i.rival.file) for i in found.images]
    assert sorted(name for trio in files for name in trio) == list(shown)
    assert len(shown) == 12
    assert {picture.shape for picture in shown.values()} == {(EDGE, EDGE, 3)}
    for image in found.images:
        pixels = images.pixels[images.image_ids.index(image.image_id)]
        size = pixels.shape[:2]
        small = np.asarray(Image.fromarray(shown[image.original]).resize(size))
        assert np.abs(small.astype(int) - pixels).mean() < 12
        for heatmap in (image.predicted, image.rival):
            assert (shown[heatmap.file] != shown[image.original]).any()
    assert found.grid == (2, 2)  # at 32 pixels; the last block has one cell left
    assert found.layer == "block5_relu"


def test_the_same_again_gives_the_same_bytes(
    shared_store: Store, store: Store, parents: dict[str, Artefact]
) -> None:
    first, again = explain(shared_store, parents, 4), explain(store, parents, 4)
    assert first.path != again.path
    assert first.content == again.content
    assert first.content != explain(store, parents, 3).content


def test_what_is_written_is_what_is_read(shared_store: Store, parents: dict[str, Artefact]) -> None:
    made = explain(shared_store, parents, 4)
    found = made.read(DOCUMENT, Explanation)
    assert isinstance(found, Explanation)
    document = json.loads(made.file(DOCUMENT).read_text())
    assert document["images"][0]["image_id"] == found.images[0].image_id
    assert set(document["images"][0]["probabilities"]) == {
        "akiec", "bcc", "bkl", "df", "mel", "nv", "vasc",
    }  # fmt: skip


def test_a_model_of_another_split_is_refused(
    shared_store: Store, prepared: Artefact, parents: dict[str, Any]
) -> None:
    stranger = shared_store.build(
        UntrainedModel(), ModelConfig(split_hash="f" * 64), {"images": prepared}
    )
    with pytest.raises(DataError, match="was trained on the split ffffffffffff"):
        explain(shared_store, {**parents, "model": stranger}, 4)


def test_an_evaluation_of_other_images_is_refused(
    shared_store: Store, prepared: Artefact, images: ImageSet, parents: dict[str, Artefact]
) -> None:
    table = np.eye(len(images.labels))[images.targets[images.indices("validation")]]
    config = EvaluationConfig(probabilities=tuple(map(tuple, table.tolist())), subset="validation")
    evaluation = shared_store.build(MadeUpEvaluation(), config, {"images": prepared})
    with pytest.raises(DataError, match="has other images"):
        explain(shared_store, {**parents, "evaluation": evaluation}, 4)
