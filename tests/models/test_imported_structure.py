"""Users' models in their many forms: models in models, layers called twice, other precisions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lesiontk.compress.keras_layers import read_layers
from lesiontk.errors import DataError
from lesiontk.models.imported_model import scope_name
from lesiontk.store import Store
from lesiontk.system.frameworks import import_keras
from lesiontk.workflow.train import import_file
from tests.model_optimization import import_sparsity
from tests.models.foreign_models import SIZE, answers, bring_in, save
from tests.models.foreign_models import settle as settle_all


def settle(model: Any) -> Any:
    """Weights of a seed, with logits so small that no probability is 1."""
    settle_all(model)
    *others, kernel, bias = model.get_weights()
    model.set_weights([*others, 0.03 * kernel, 0.03 * bias])
    return model


def head(keras: Any, x: Any) -> Any:
    return keras.layers.Dense(3, activation="softmax", name="top")(x)


def pooled(keras: Any, x: Any) -> Any:
    return keras.layers.GlobalAveragePooling2D()(x)


def models_in_models(keras: Any) -> Any:
    """Three levels; the inner one is a Sequential of a Sequential."""
    layers = keras.layers
    small = keras.Sequential([layers.Conv2D(4, 3, padding="same", name="deep"), layers.ReLU()])
    middle = keras.Sequential([keras.Input((SIZE, SIZE, 3)), small, layers.MaxPooling2D(2)])
    image = keras.Input((SIZE, SIZE, 3))
    body = keras.Model(image, pooled(keras, middle(image)), name="body")
    outer = keras.Input((SIZE, SIZE, 3))
    return keras.Model(outer, head(keras, body(outer)))


def several_outputs_inside(keras: Any) -> Any:
    """A backbone that gives two feature maps, and a neck that takes two."""
    layers = keras.layers
    image = keras.Input((SIZE, SIZE, 3))
    first = layers.Conv2D(4, 3, strides=2, activation="relu")(image)
    second = layers.Conv2D(6, 3, strides=2, activation="relu")(first)
    backbone = keras.Model(image, [second, first], name="backbone")  # not in the order made
    left, right = keras.Input((7, 7, 6)), keras.Input((15, 15, 4))
    joined = layers.Concatenate()([pooled(keras, left), pooled(keras, right)])
    neck = keras.Model([left, right], joined, name="neck")
    outer = keras.Input((SIZE, SIZE, 3))
    return keras.Model(outer, head(keras, neck(backbone(outer))))


def one_output_of_two(keras: Any) -> Any:
    """Only the second output of the model inside is used."""
    image = keras.Input((SIZE, SIZE, 3))
    first = keras.layers.Conv2D(4, 3, activation="relu")(image)
    second = keras.layers.Conv2D(5, 3, activation="relu")(first)
    inside = keras.Model(image, [first, second])
    outer = keras.Input((SIZE, SIZE, 3))
    return keras.Model(outer, head(keras, pooled(keras, inside(outer)[1])))


def a_layer_twice(keras: Any) -> Any:
    layers = keras.layers
    image = keras.Input((SIZE, SIZE, 3))
    again = layers.Conv2D(3, 3, padding="same", activation="relu", name="again")
    x = layers.Add()([again(again(image)), image])
    return keras.Model(image, head(keras, pooled(keras, x)))


def a_model_twice(keras: Any) -> Any:
    layers = keras.layers
    tower = keras.Sequential(
        [keras.Input((SIZE, SIZE, 3)), layers.Conv2D(4, 3, name="tower_conv"), layers.ReLU(),
         layers.GlobalAveragePooling2D()]
    )  # fmt: skip
    image = keras.Input((SIZE, SIZE, 3))
    other = layers.Rescaling(-1.0, 255.0)(image)
    return keras.Model(image, head(keras, layers.Concatenate()([tower(image), tower(other)])))


def logits_and_softmax(keras: Any) -> Any:
    image = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Dense(3)(pooled(keras, keras.layers.Conv2D(4, 3)(image)))
    return keras.Model(image, keras.layers.Softmax()(x))


def a_head_in_a_model(keras: Any) -> Any:
    """The classifier is a Sequential of its own, as in Keras' guide to transfer learning."""
    layers = keras.layers
    body = keras.Sequential([keras.Input((SIZE, SIZE, 3)), layers.Conv2D(4, 3), layers.ReLU()])
    classifier = keras.Sequential(
        [layers.GlobalAveragePooling2D(), layers.Dropout(0.2), layers.Dense(3),
         layers.Activation("softmax")]
    )  # fmt: skip
    return keras.Sequential([keras.Input((SIZE, SIZE, 3)), body, classifier])


STRUCTURES: dict[str, Callable[[Any], Any]] = {
    build.__name__: build
    for build in (
        models_in_models, several_outputs_inside, one_output_of_two, a_layer_twice, a_model_twice,
        logits_and_softmax, a_head_in_a_model,
    )
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".keras", ".h5", ""])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_structure_is_built_anew(structure: str, suffix: str, keras: Any, tmp_path: Path) -> None:
    if not suffix and keras.__version__.startswith("3."):
        pytest.skip("Keras 3 writes no SavedModel with layers")
    source = settle(STRUCTURES[structure](keras))
    found = bring_in(save(source, tmp_path / f"model{suffix}"))
    expected = answers(source)
    np.testing.assert_allclose(answers(found.model), expected, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 1e-3  # so that a mistake would show
    read_layers(found.model)  # raises where a layer is called twice


def test_a_layer_that_is_called_twice_is_told(keras: Any, tmp_path: Path) -> None:
    found = bring_in(save(settle(a_layer_twice(keras)), tmp_path / "model.keras"))
    assert found.copied == ("again",)
    one, two = (found.model.get_layer(name).get_weights() for name in ("again", "again_1"))
    np.testing.assert_array_equal(one[0], two[0])
    assert bring_in(save(settle(logits_and_softmax(keras)), tmp_path / "o.keras")).copied == ()


# -------------------------------------------------------------------------- precisions


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "float64"])
@pytest.mark.parametrize("suffix", [".keras", ".h5", ""])
def test_a_model_of_another_precision_is_compared_in_float32(
    suffix: str, policy: str, keras: Any, tmp_path: Path
) -> None:
    if not suffix and keras.__version__.startswith("3."):
        pytest.skip("Keras 3 writes no SavedModel with layers")
    settings = keras.config if hasattr(keras, "config") else keras.mixed_precision
    set_policy = getattr(settings, "set_dtype_policy", None) or settings.set_global_policy
    set_policy(policy)
    try:
        source = settle(models_in_models(keras))
        path = save(source, tmp_path / f"model{suffix}")
    finally:
        set_policy("float32")
    if not suffix and not policy.startswith("mixed"):
        with pytest.raises(DataError, match=rf"weights of {policy}, .* save .* as a \.keras"):
            bring_in(path)
        return
    found = bring_in(path)
    assert {layer.dtype_policy.name for layer in found.model.layers} == {"float32"}
    same = settle(models_in_models(keras))
    rounding = 1e-3 if policy == "float16" else 1e-5  # of the stored weights
    np.testing.assert_allclose(answers(found.model), answers(same), atol=rounding)


# ------------------------------------------------------------------------- files, names


@pytest.mark.parametrize("name", ["net.keras", "net.H5", "net.HDF5", "net.model", "net"])
def test_hdf5_is_known_by_its_content(name: str, keras: Any, tmp_path: Path) -> None:
    """TensorFlow 2.8 to 2.11 wrote HDF5 for ``model.save('x.keras')``."""
    source = settle(logits_and_softmax(keras))
    path = shutil.copy(save(source, tmp_path / "net.h5"), tmp_path / f"copy_of_{name}")
    np.testing.assert_allclose(answers(bring_in(path).model), answers(source), atol=1e-5)


@pytest.mark.parametrize("name", ["net.KERAS", "net.zip", "net.h5"])
def test_a_keras_archive_is_known_by_its_content(name: str, keras: Any, tmp_path: Path) -> None:
    source = settle(logits_and_softmax(keras))
    path = shutil.copy(save(source, tmp_path / "net.keras"), tmp_path / f"copy_of_{name}")
    np.testing.assert_allclose(answers(bring_in(path).model), answers(source), atol=1e-5)


def test_the_list_of_layers_of_an_old_sequential_is_read(tmp_path: Path) -> None:
    """Before Keras 2.2.3 a Sequential's configuration was the list of its layers."""
    keras = import_keras()
    layers = keras.layers
    source = settle(
        keras.Sequential(
            [
                keras.Input((SIZE, SIZE, 3)),
                layers.Conv2D(4, 3, activation="relu"),
                layers.Flatten(),
                layers.Dense(3, activation="softmax"),
            ]
        )
    )
    path = save(source, tmp_path / "old.h5")
    with h5py.File(path, "r+") as file:
        entries = json.loads(file.attrs["model_config"])["config"]["layers"][1:]
        entries[0]["config"]["batch_input_shape"] = [None, SIZE, SIZE, 3]
        old = {"class_name": "Sequential", "config": entries}
        file.attrs["model_config"] = json.dumps(old).encode()
        file.attrs["keras_version"] = b"2.1.6"
    np.testing.assert_allclose(answers(bring_in(path).model), answers(source), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("Conv 1", "Conv_1"),
        ("Schicht-ä", "Schicht-a"),
        ("conv(1)", "conv_1"),
        ("1st conv", "1st_conv"),
        ("_hidden", "hidden"),
        ("层", "layer"),
    ],
)
def test_a_name_becomes_one_that_tensorflow_takes(
    name: str,
    ours: str,
    keras3: Any,
    tmp_path: Path,
) -> None:
    layers = keras3.layers
    source = keras3.Sequential(
        [
            keras3.Input((SIZE, SIZE, 3)),
            layers.Conv2D(4, 3, name=name),
            layers.ReLU(name=f"{name} "),  # the same once it is plain
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    found = bring_in(save(settle(source), tmp_path / "model.keras"))
    assert [layer.name for layer in found.model.layers][1:3] == [ours, f"{ours}_1"]
    assert scope_name(ours) == ours


# ---------------------------------------------------------------------------- refusals


def save_broken(path: Path, value: float) -> Path:
    """Save a model with one weight that is no number, which max pooling hides from the output."""
    keras = import_keras()
    layers = keras.layers
    source = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            layers.Conv2D(4, 3, activation="relu", name="broken"),
            layers.MaxPooling2D(4),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    weights = source.get_weights()
    weights[0][0, 0, 0, 0] = value
    source.set_weights(weights)
    return save(source, path)


BROKEN = r"layer 'broken' \(Conv2D\) .* 1 of its weights are no"


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("suffix", [".keras", ".h5", ""])
def test_weights_that_are_no_numbers_are_refused_by_the_layers_name(
    suffix: str, value: float, tmp_path: Path
) -> None:
    path = save_broken(tmp_path / f"model{suffix}", value)
    with pytest.raises(DataError, match=BROKEN):
        bring_in(path)


def test_weights_that_are_no_numbers_are_refused_before_images_are_prepared(
    store: Store, tmp_path: Path
) -> None:
    path = save_broken(tmp_path / "model.keras", np.nan)
    with pytest.raises(DataError, match=BROKEN):
        import_file(
            store, path, data=None, task=None, pixels="0..255", overrides=["data.source=synthetic"]
        )
    assert store.list_artefacts() == []


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_what_model_optimization_wraps_is_refused_with_the_mend(
    suffix: str, tmp_path: Path
) -> None:
    from lesiontk.system.frameworks import import_model_optimization

    keras = import_keras()
    pruned = import_sparsity().prune_low_magnitude(logits_and_softmax(keras))
    with pytest.raises(DataError, match=r"\(PruneLowMagnitude\) .*: save .*strip_pruning"):
        bring_in(save(pruned, tmp_path / f"pruned{suffix}"))
    if suffix == ".h5":
        aware = import_model_optimization().quantize.quantize_model(logits_and_softmax(keras))
        with pytest.raises(DataError, match=r"\(QuantizeLayer\) .*: save the float model"):
            bring_in(save(aware, tmp_path / f"aware{suffix}"))
