"""The networks that PyTorch trains are Keras' own: same answers, same loss, same augmentation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from click import ClickException

from lesiontk.backends.keras.backend import load_model, read_spec, save_model
from lesiontk.data.augment import augment_dermoscopy
from lesiontk.data.images import open_images
from lesiontk.models import ARCHITECTURES
from lesiontk.models.architecture import build_model
from lesiontk.recipe import parse_recipe
from lesiontk.records import MAY_HAVE_SEEN_TEST
from lesiontk.store import Store
from lesiontk.system.frameworks import import_keras, import_tensorflow
from lesiontk.train.distillation import SoftTargets, soften
from lesiontk.train.imbalance import choose_imbalance, make_loss, weigh_and_shift
from lesiontk.workflow.compress import compress_model
from lesiontk.workflow.train import train_recipe
from tests.loose_modules import load_module

torch = pytest.importorskip("torch", reason="PyTorch is no dependency: pip install torch")
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ENGINES = sorted((BENCHMARKS / "engines").glob("*/keras_float32.keras"))


@pytest.fixture(scope="module")
def recover() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return load_module(BENCHMARKS / "recover_in_pytorch.py")


@pytest.mark.parametrize("file", ENGINES, ids=lambda file: file.parent.name)
def test_a_network_answers_as_in_keras(recover: ModuleType, file: Path) -> None:
    network = recover.KerasNetwork(file).eval()
    images = np.random.default_rng(1).integers(0, 256, (4, network.size, network.size, 3))
    expected = load_model(file).predict(images.astype(np.float32), verbose=0)
    with torch.no_grad():
        said = network(torch.from_numpy(images).permute(0, 3, 1, 2).float()).softmax(1)
    np.testing.assert_allclose(said.numpy(), expected, atol=1e-4)


def test_the_augmentation_is_that_of_training(recover: ModuleType) -> None:
    tf = import_tensorflow()
    images = np.random.default_rng(2).uniform(0, 255, (6, 32, 32, 3)).astype(np.float32)
    unit = tf.random.stateless_uniform([12, 6], [3, 4]).numpy()
    view = recover.view_from_uniform(torch.from_numpy(unit))
    ours = view.apply(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(ours.numpy(), augment_dermoscopy(images, [3, 4]), atol=0.05)


def test_the_loss_is_that_of_distillation(recover: ModuleType) -> None:
    tf, draw = import_tensorflow(), np.random.default_rng(3)
    counts = np.array([10, 200, 30])
    logits, said = draw.normal(0, 2, (2, 16, 3)).astype(np.float32)
    truth = np.eye(3, dtype=np.float32)[draw.integers(0, 3, 16)]
    soft = soften(tf.nn.softmax(said).numpy(), 2.0)
    choices = [choose_imbalance("logit_adjustment")]
    expected = SoftTargets(soft, 2.0, 0.7).make_loss(
        make_loss(choices, counts), *weigh_and_shift(choices, counts)
    )(np.hstack([truth, soft]), logits)
    shift = torch.log(torch.tensor(counts / counts.sum(), dtype=torch.float32))
    loss = recover.Loss(shift, 2.0, 0.7)(*map(torch.from_numpy, (logits, truth, said)))
    assert float(loss) == pytest.approx(float(tf.reduce_mean(expected)), rel=1e-4)


def test_a_network_leaves_recovers_and_comes_back(
    recover: ModuleType, store: Store, tmp_path: Path
) -> None:
    data = {
        "source": "synthetic",
        "image_size": 32,
        "synthetic": {"lesions": 84, "image_size": 48, "seed": 3},
    }
    train = {"epochs": 1, "batch_size": 16, "augment": "none"}
    model = train_recipe(store, parse_recipe({"name": "tiny", "data": data, "train": train}))
    file, out = model.file("model.keras"), tmp_path / "out.keras"
    images = store.parent(model, "images")
    arguments = [str(file), "--teacher", str(file), "--images", str(images.path), "--out", str(out)]
    with pytest.raises(ClickException, match=r"--ema is 0.998, an average of 500 steps; expected"):
        recover.cli.main([*arguments, "--epochs", "4", "--batch-size", "16"], standalone_mode=False)
    orders = ["--epochs", "4", "--batch-size", "16", "--ema", "0.5", "--warmup-epochs", "0"]
    recover.cli.main([*arguments, *orders], standalone_mode=False)
    adopted = compress_model(store, model, "load_weights", {"file": str(out)})
    assert adopted.facts["change"]["trained_by"]["epochs"] == 4
    before, after = (load_model(a.file("model.keras")).get_weights() for a in (model, adopted))
    assert all(np.abs(old - new).max() > 0 for old, new in zip(before, after, strict=True))
    pixels = open_images(images).pixels[:8].astype(np.float32)
    expected = load_model(adopted.file("model.keras")).predict(pixels, verbose=0)
    network = recover.KerasNetwork(out).eval()
    with torch.no_grad():
        said = network(torch.from_numpy(pixels).permute(0, 3, 1, 2)).softmax(1)
    np.testing.assert_allclose(said.numpy(), expected, atol=1e-4)


def test_what_a_teacher_may_have_seen_the_student_may_have(
    recover: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = next(file for file in ENGINES if file.parent.name == "cnn_7class")
    spec = read_spec(student)
    unknown = replace(spec, extra={**spec.extra, MAY_HAVE_SEEN_TEST: True})
    save_model(load_model(student), unknown, tmp_path / "teacher.keras")
    monkeypatch.setattr(recover, "Recovery", Silent)
    arguments = ["--teacher", str(tmp_path / "teacher.keras"), "--images", str(tmp_path)]
    out = tmp_path / "out.keras"
    recover.cli.main([str(student), *arguments, "--out", str(out)], standalone_mode=False)
    assert read_spec(out).may_have_seen_test
    assert not spec.may_have_seen_test


class Silent:
    """A recovery that trains nothing."""

    device = "cpu"

    def __init__(self, *_: object) -> None:
        pass

    def score(self) -> dict[str, float]:
        return {}

    def run(self) -> None:
        pass


@pytest.mark.parametrize("architecture", ["vgg16", "resnet152v2"])
def test_networks_of_every_kind_answer_as_in_keras(
    recover: ModuleType, architecture: str, tmp_path: Path
) -> None:
    model = build_model(ARCHITECTURES.get(architecture), image_size=32, classes=7)
    draw = np.random.default_rng(4)
    model.set_weights([value + draw.normal(0, 0.001, value.shape) for value in model.get_weights()])
    save_model(model, read_spec(ENGINES[0]), tmp_path / "random.keras")
    network = recover.KerasNetwork(tmp_path / "random.keras").eval()
    images = draw.uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    with torch.no_grad():
        logits = network(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    expected = import_keras().Model(model.input, model.layers[-2].output).predict(images, verbose=0)
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_a_layer_that_is_not_known_is_named(recover: ModuleType, tmp_path: Path) -> None:
    keras = import_keras()
    image = keras.Input((32, 32, 3), name="image")
    tensor = keras.layers.Conv2D(4, 3, dilation_rate=2, name="wide")(image)
    tensor = keras.layers.Dense(7)(keras.layers.GlobalAveragePooling2D()(tensor))
    model = keras.Model(image, keras.layers.Softmax()(tensor))
    save_model(model, read_spec(ENGINES[0]), tmp_path / "wide.keras")
    with pytest.raises(ClickException, match=r"layer wide has dilation_rate \[2, 2\]"):
        recover.KerasNetwork(tmp_path / "wide.keras")
