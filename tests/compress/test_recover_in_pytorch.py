"""The networks that PyTorch trains are Keras' own: same answers, same loss, same augmentation."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from lesiontk.backends.keras_backend import load_model
from lesiontk.data.augment import augment_dermoscopy
from lesiontk.data.images import open_images
from lesiontk.frameworks import import_tensorflow
from lesiontk.recipe import parse_recipe
from lesiontk.store import Store
from lesiontk.train.imbalance import choose_imbalance, make_loss, weigh_and_shift
from lesiontk.train.lessons import Lessons, soften
from lesiontk.workflow import compress_model, train_recipe

from ..loose_modules import load_module

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
    expected = Lessons(soft, 2.0, 0.7).make_loss(
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
    recover.cli.main([*arguments, "--epochs", "2", "--batch-size", "16"], standalone_mode=False)
    adopted = compress_model(store, model, "adopt", {"file": str(out)})
    assert adopted.facts["adopted"]["trained_by"]["epochs"] == 2
    pixels = open_images(images).pixels[:8].astype(np.float32)
    expected = load_model(adopted.file("model.keras")).predict(pixels, verbose=0)
    network = recover.KerasNetwork(out).eval()
    with torch.no_grad():
        logits = network(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    if shift := adopted.facts.get("kept_recall", {}).get("bias_raised"):
        logits[:, images.facts["labels"].index(images.facts["critical"])] += shift
    np.testing.assert_allclose(logits.softmax(1).numpy(), expected, atol=1e-4)
