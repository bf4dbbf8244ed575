"""A model and its engines in Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import lesiontk
from lesiontk.api.engines import UnknownEngineError
from lesiontk.data.preprocess import preprocess_image
from lesiontk.errors import DataError, UsageError
from lesiontk.stages.cluster import Clustering


def test_a_compression_returns_a_new_model(model: lesiontk.Model) -> None:
    clustered = model.cluster(clusters=8, recover={"epochs": 1})
    assert clustered.architecture == "tiny_cnn + cluster"
    assert clustered.record.read_change(Clustering).clusters == 8
    assert model.architecture == "tiny_cnn"
    assert len(clustered.curves()) >= 1


def test_a_technique_has_a_method_of_its_name(model: lesiontk.Model) -> None:
    assert callable(model.equalize)
    with pytest.raises(AttributeError, match="attribute 'quantise'"):
        model.quantise  # noqa: B018
    with pytest.raises(UsageError, match="prune"):
        model.compress("prun")


def test_an_unknown_key_of_a_technique_is_refused(model: lesiontk.Model) -> None:
    with pytest.raises(UsageError, match="keep_macs"):
        model.prune(keep_mac=0.5)


def test_none_is_a_value_of_a_key(model: lesiontk.Model) -> None:
    """A key that is given as None reaches the technique; it is not left out."""
    with pytest.raises(UsageError, match="clusters"):
        model.compress("cluster", clusters=None)


def test_an_int8_engine_predicts_files_and_arrays_alike(
    engine: lesiontk.Engine, picture: NDArray[np.uint8], tmp_path: Path
) -> None:
    from PIL import Image

    Image.fromarray(picture).save(tmp_path / "picture.png")
    of_file = engine.predict(tmp_path / "picture.png")
    of_array = engine.predict(np.stack([picture, picture]))
    assert of_file.probabilities.shape == (1, 7)
    assert of_array.probabilities.shape == (2, 7)
    np.testing.assert_array_equal(of_array.probabilities[0], of_file.probabilities[0])
    np.testing.assert_allclose(of_array.probabilities.sum(axis=1), 1, atol=0.02)
    assert list(of_file.to_pandas()["image"]) == [str(tmp_path / "picture.png")]
    assert engine.predict(str(tmp_path / "picture.png")).document == of_file.document
    assert len(engine.predict([picture, tmp_path / "picture.png"])) == 2


def test_a_picture_is_prepared_as_in_training(
    engine: lesiontk.Engine, picture: NDArray[np.uint8]
) -> None:
    preprocessing = engine.spec.preprocessing
    with lesiontk.open_engine(engine.file) as opened:
        prepared = preprocess_image(picture, preprocessing)
        expected = opened.predict(prepared[np.newaxis])
        size = preprocessing.image_size
        corner = opened.predict(picture[np.newaxis, :size, :size])
    received = engine.predict(picture).probabilities
    np.testing.assert_allclose(received, expected, atol=1e-6)
    assert np.abs(received - corner).max() > 1e-3  # the twin: another crop is another input


def test_a_broken_image_is_an_error_unless_it_may_be_left_out(
    engine: lesiontk.Engine, picture: NDArray[np.uint8], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        engine.predict([broken, picture])
    found = engine.predict([broken, picture], skip_broken=True)
    assert len(found) == 1
    assert [failure.image for failure in found.failures] == [str(broken)]
    with pytest.raises(DataError, match=r"uint8 \[H, W, 3\]"):
        engine.predict(picture.astype(np.float32))


def test_an_engine_is_evaluated_on_its_test_split(engine: lesiontk.Engine) -> None:
    found = engine.evaluate(gates=["accuracy >= 0.999 @ 0.95"])
    assert found.record.n == int(found.confusion().to_numpy().sum())
    assert found.metrics["accuracy"].value is not None
    assert "accuracy" in set(found.to_pandas()["metric"])
    assert not found.verdicts[0].passed
    assert isinstance(found.notes, list)


def test_an_evaluated_engine_decides(
    engine: lesiontk.Engine, picture: NDArray[np.uint8], tmp_path: Path
) -> None:
    engine.evaluate(out=tmp_path / "engine.tflite")
    alone = engine.workspace.engine(tmp_path / "engine.tflite")
    assert alone.artefact is None
    assert alone.target == "tflite:int8"
    assert alone.predict(picture).to_pandas()["positive"].dtype == bool
    assert alone.predict(picture, threshold=0.0).to_pandas()["positive"].all()
    with pytest.raises(UsageError, match="outside the workspace"):
        alone.verify()


def test_an_engine_is_verified_against_its_model(engine: lesiontk.Engine) -> None:
    checks = engine.verify().to_pandas().set_index("check")
    assert checks.loc["top-1 agreement", "value"] > 0.9


def test_one_target_is_an_engine_and_several_are_engines(model: lesiontk.Model) -> None:
    one = model.convert("tflite:float16")
    assert isinstance(one, lesiontk.Engine)
    assert one.target == "tflite:float16"
    several = model.convert("tflite:float16", "tflite:int8")
    assert list(several) == ["tflite:float16", "tflite:int8"]
    assert several["tflite:float16"].name == one.name
    with pytest.raises(UsageError, match="tflite:int8"):
        model.convert("tflite:int9")


def test_an_engine_that_is_not_there_is_named_with_the_nearest(engines: lesiontk.Engines) -> None:
    with pytest.raises(UnknownEngineError, match="Did you mean 'tflite:int8'"):
        engines["tflite:int"]
    assert engines.get("tflite:int") is None
    assert list(engines.to_pandas()["engine"]) == list(engines)


def test_what_a_notebook_shows_is_escaped(model: lesiontk.Model, engines: lesiontk.Engines) -> None:
    assert model.name in model._repr_html_()
    assert "tflite:int8" in engines._repr_html_()
    assert "<script" not in engines._repr_html_()


def test_the_layers_are_ranked_by_what_int8_costs(model: lesiontk.Model) -> None:
    found = model.sensitivity(
        set={
            "sensitivity.images": 16,
            "sensitivity.trials": 1,
            "gate": ["macro_auc >= parent - 0.1 @ 0.95"],
        }
    )
    table = found.to_pandas()
    assert len(table) == found.record.layers
    assert table["mean_drift"].is_monotonic_decreasing
    assert found.record.outcome in found._repr_html_()
    assert found.kept is None or set(found.kept) <= set(table["layer"])


def test_another_draw_of_images_is_compared(model: lesiontk.Model) -> None:
    found = model.stability(draws=1)
    assert len(found.to_pandas()) == 1
    assert found.document["target"] == "tflite:int8"
    with pytest.raises(UsageError, match="int8"):
        model.stability("tflite:float32")
