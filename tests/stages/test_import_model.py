"""A model trained elsewhere, from the command line to int8 engines."""

from __future__ import annotations

import json
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from lesiontk.backends import open_engine
from lesiontk.backends.backend import dump_spec
from lesiontk.backends.keras.backend import MEMBER, read_spec
from lesiontk.cli.main import cli
from lesiontk.errors import DataError, UsageError
from lesiontk.recipe import override_recipe, read_recipe
from lesiontk.records import EngineSpec, Preprocessing
from lesiontk.system.frameworks import import_keras
from lesiontk.workflow.plan import plan_recipe
from tests.loose_modules import load_benchmark

ROOT = Path(__file__).parents[2]

LABELS = ["nv", "mel", "akiec", "bcc", "bkl", "df", "vasc"]
SMALL = ["data.source=synthetic", "data.synthetic.lesions=70", "data.synthetic.image_size=40"]


def save_model(path: Path, size: int | None = 32) -> Path:
    """Write a small network that nobody trained."""
    keras = import_keras()
    keras.utils.set_random_seed(2)
    layers = keras.layers
    image = keras.Input((size, size, 3))
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(image)
    again = layers.Conv2D(8, 3, padding="same", activation="relu")
    x = layers.Add()([again(again(x)), x])  # a layer that is called twice
    x = layers.GlobalAveragePooling2D()(layers.BatchNormalization()(x))
    model = keras.Model(image, layers.Dense(7, activation="softmax")(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(str(path))
    return path


def write_spec(file: Path, split_hash: str) -> Path:
    """Let the file say that lesiontk trained it on this split."""
    spec = EngineSpec(
        tuple(sorted(LABELS)), Preprocessing(32), "seven_class", "keras", "float32", "net",
        split_hash,
    )  # fmt: skip
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(MEMBER, dump_spec(spec))
    return file


def call(workspace: Path, *words: str) -> Result:
    return CliRunner().invoke(cli, [*words, "--json", "--quiet", "--workspace", str(workspace)])


def import_it(workspace: Path, file: Path, *words: str) -> Any:
    options = [part for item in SMALL for part in ("--set", item)]
    done = call(workspace, "import", str(file), "--pixels", "0..1", *options, *words)
    if done.exception is not None:
        raise done.exception
    return json.loads(done.stdout)


def test_it_becomes_a_model_and_int8_engines(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    file = save_model(tmp_path / "My Net.keras")
    document = import_it(workspace, file, "--labels", ",".join(LABELS))
    assert document["labels"] == sorted(LABELS)
    assert document["architecture"] == "imported"
    assert document["change"]["copied"] == ["conv2d_1"]
    assert document["change"]["layers"] == 7
    assert document["change"]["greatest_difference"] < 1e-4
    assert document["note"] == f"outputs taken in the order {', '.join(LABELS)}, as given"
    assert 0 <= document["validation"]["metrics"]["balanced_accuracy"] <= 1
    again = import_it(workspace, file, "--labels", ",".join(LABELS))
    assert again["model"] == document["model"]  # nothing is made twice
    loose = ["calibration.images=16", "verify.min_agreement_int8=0"]
    options = [part for item in loose for part in ("--set", item)]
    done = call(workspace, "quantize", "latest:my_net", "--int8", *options)
    assert done.exit_code == 0, done.output
    assert set(json.loads(done.stdout)) == {"tflite:int8", "onnx:int8"}


def test_another_file_under_the_same_name_is_imported_anew(tmp_path: Path) -> None:
    workspace, file = tmp_path / "workspace", tmp_path / "net.keras"
    first = import_it(workspace, save_model(file))
    assert first["change"]["labels"] == sorted(LABELS)
    assert first["change"]["labels_assumed"]
    assert "the task's order was assumed, specify another with --labels" in first["note"]
    model = import_keras().models.load_model(str(file))
    model.layers[-1].set_weights([2 * weights for weights in model.layers[-1].get_weights()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(str(file))
    assert import_it(workspace, file)["model"] != first["model"]


def test_as_a_recipe_s_model_it_is_compressed_on_as_the_recipe_says(tmp_path: Path) -> None:
    workspace, file = tmp_path / "workspace", save_model(tmp_path / "net.keras")
    document = import_it(workspace, file, "--recipe", "efficientnet_lite0_7class")
    manifest = json.loads((Path(document["path"]) / "manifest.json").read_text())
    recipe = read_recipe("efficientnet_lite0_7class")
    assert manifest["recipe"]["name"] == "efficientnet_lite0_7class"
    assert manifest["recipe"]["gate"] == recipe.model_dump(mode="json")["gate"]
    assert manifest["recipe"]["train"]["imbalance"] == ["logit_adjustment"]
    assert manifest["recipe"]["data"]["image_size"] == 32  # the file's, not the recipe's
    assert manifest["stage"]["name"] == "import"


def test_wrong_labels_are_refused_before_images_are_prepared(tmp_path: Path) -> None:
    file = save_model(tmp_path / "net.keras")
    with pytest.raises(
        UsageError, match=r"imported\.labels are nv, mel; expected akiec, bcc.*--labels"
    ):
        import_it(tmp_path / "workspace", file, "--labels", "nv,mel")
    assert not (tmp_path / "workspace").exists()


def test_without_images_it_is_refused(tmp_path: Path) -> None:
    file = save_model(tmp_path / "net.keras")
    done = call(tmp_path / "workspace", "import", str(file))
    assert isinstance(done.exception, UsageError)
    assert done.exception.exit_code == 2
    for part in (
        "net.keras was specified without images",
        "--data DIR",
        "--set data.source=synthetic",
    ):
        assert part in str(done.exception)


def test_a_model_for_images_of_any_size_is_taken_at_the_size_that_is_said(tmp_path: Path) -> None:
    file = save_model(tmp_path / "net.keras", size=None)
    with pytest.raises(
        UsageError, match=r"net\.keras accepts images of any size; .* --set data\.ima"
    ):
        import_it(tmp_path / "workspace", file)
    done = call(tmp_path / "workspace", "import", str(file), "--set", "data.image_size=32")
    assert "net.keras was specified without images" in str(done.exception)  # the size is enough


def test_a_recipe_can_name_the_file() -> None:
    recipe = override_recipe(read_recipe("demo"), ["imported.file=net.keras"])
    with pytest.raises(DataError, match=r"imported\.file net\.keras does not exist"):
        plan_recipe(recipe)
    known = plan_recipe(recipe, images_known=True)
    assert known["model"].stage == "import"


def test_of_a_model_that_nobody_knows_it_is_said_that_it_may_have_seen_the_test_images(
    tmp_path: Path,
) -> None:
    workspace = tmp_path / "workspace"
    document = import_it(workspace, save_model(tmp_path / "net.keras"))
    assert document["may_have_seen_test"]
    made = Path(document["path"]) / "model.keras"
    assert "It may have been trained on its test images" in read_spec(made).notice
    assert call(workspace, "convert", "latest", "--to", "keras:float32").exit_code == 0
    done = call(workspace, "evaluate", "latest", "--set", "evaluate.resamples=100")
    assert json.loads(done.stdout)["may_have_seen_test"]
    assert "whether it was trained on these test images is not known" in done.stderr
    again = import_it(workspace, made, "--set", "imported.pixels=0..255")
    assert again["may_have_seen_test"]  # though the file tells a split


def test_a_file_of_lesiontk_must_be_of_the_split_of_the_images(tmp_path: Path) -> None:
    workspace, file = tmp_path / "workspace", save_model(tmp_path / "net.keras")
    split = import_it(workspace, file)["split_hash"]
    own = import_it(workspace, write_spec(file, split))
    assert not own["may_have_seen_test"]
    assert not read_spec(Path(own["path"]) / "model.keras").may_have_seen_test
    with pytest.raises(DataError, match=rf"split {split[:12]}; received images of"):
        import_it(workspace, file, "--set", "data.split.seed=8")


@pytest.mark.slow
def test_a_network_widened_from_a_published_engine_says_its_split(tmp_path: Path) -> None:
    module = load_benchmark("widen_engine")
    file = tmp_path / "vgg16.keras"
    done = CliRunner().invoke(module.cli, ["vgg16_binary", str(file)])
    assert done.exit_code == 0, done.output
    with open_engine(ROOT / "benchmarks/engines/vgg16_binary/onnx_int8.onnx") as engine:
        assert read_spec(file) == replace(engine.spec, backend="keras", precision="float32")
    with pytest.raises(DataError, match=r"vgg16\.keras was trained on the split 7c9837e2eefb"):
        import_it(tmp_path / "workspace", file, "--set", "imported.pixels=0..255")
