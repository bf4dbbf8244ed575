"""The one door for model files: what it refuses before Keras makes anything of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from lesiontk.backends import open_engine
from lesiontk.backends.backend import dump_spec
from lesiontk.backends.keras.backend import MEMBER, load_model
from lesiontk.cli.main import cli
from lesiontk.errors import DataError
from lesiontk.models import imported_config
from lesiontk.models.imported_config import parse_description, permit_model
from lesiontk.models.imported_file import load_foreign_model, load_model_file
from lesiontk.records import EngineSpec, Preprocessing
from lesiontk.stages.load_weights import copy_weights
from lesiontk.system.frameworks import import_keras, import_tensorflow

ROOT = Path(__file__).parents[2]
PIXELS = np.random.default_rng(1).uniform(-1, 1, (1, 16, 16, 3)).astype(np.float32)
Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small model in each form, by its suffix and the Keras that wrote it."""
    import_tensorflow()
    folder = tmp_path_factory.mktemp("models")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras

        files = {}
        for name, library in (("2", import_keras()), ("3", keras)):
            library.utils.set_random_seed(1)
            layers = library.layers
            image = library.Input((16, 16, 3), name="image")
            x = layers.Conv2D(4, 3, activation="relu", name="conv")(image)
            x = layers.GlobalAveragePooling2D(name="pool")(x)
            x = layers.Dense(3, activation="softmax", name="top")(x)
            model = library.Model(image, x)
            for suffix in (".keras", ".h5"):
                files[f"{suffix}{name}"] = folder / f"model{name}{suffix}"
                model.save(str(files[f"{suffix}{name}"]))
            if name == "2":
                files["folder2"] = folder / "saved_model"
                model.save(str(files["folder2"]), save_format="tf")
    return files


FORMS = (".keras2", ".keras3", ".h52", ".h53", "folder2")


def changed(source: Path, to: Path, change: Change) -> Path:
    """Return a copy of a model file whose description was changed."""
    if source.is_dir():
        from tf_keras.protobuf.saved_metadata_pb2 import SavedMetadata

        path = Path(shutil.copytree(source, to / source.name))
        file = path / "keras_metadata.pb"
        metadata = SavedMetadata.FromString(file.read_bytes())
        for node in metadata.nodes:
            if node.node_path == "root":
                config = json.loads(node.metadata)
                change(config)
                node.metadata = json.dumps(config)
        file.write_bytes(metadata.SerializeToString())
        return path
    path = Path(shutil.copy(source, to / source.name))
    if source.suffix == ".h5":
        with h5py.File(path, "r+") as hdf5:
            config = json.loads(hdf5.attrs["model_config"])
            change(config)
            hdf5.attrs["model_config"] = json.dumps(config)
        return path
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    change(config)
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def layer(config: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        entry for entry in config["config"]["layers"] if entry["config"]["name"] == name
    )
    return found


@pytest.mark.parametrize("form", FORMS)
def test_a_model_answers_as_before(form: str, sources: dict[str, Path]) -> None:
    model = load_model_file(sources[form])
    other = load_model_file(sources[f".h5{form[-1]}"])
    np.testing.assert_allclose(np.asarray(model(PIXELS)), np.asarray(other(PIXELS)), atol=1e-6)
    assert np.asarray(model(PIXELS)).std() > 0


def function(name: str, arguments: dict[str, Any]) -> Change:
    """Put a TensorFlow function in the place of the pooling."""

    def change(config: dict[str, Any]) -> None:
        entry = layer(config, "pool")
        entry["class_name"] = "TFOpLambda"
        entry["config"] = {"name": "pool", "function": name}
        entry["inbound_nodes"] = [["conv", 0, 0, arguments]]
        if "module" in entry:
            entry |= {
                "module": "tf_keras.src.layers.core.tf_op_layer",
                "registered_name": "TFOpLambda",
            }

    return change


def replaced(name: str, **parts: Any) -> Change:
    return lambda config: layer(config, name).update(parts)


def configured(name: str, **arguments: Any) -> Change:
    return lambda config: layer(config, name)["config"].update(arguments)


LAMBDA = {"class_name": "__lambda__", "config": {"value": ["4wAA", None, None]}}
GADGETS: dict[str, Change] = {
    "a class of another module": replaced("pool", module="subprocess", class_name="Popen"),
    "a registered name": replaced("pool", registered_name="mine>Gadget", class_name="Gadget"),
    "a known class under a registered name": replaced(
        "pool", module="keras.layers", registered_name="builtins>eval"
    ),
    "a layer of code": replaced("pool", class_name="Lambda", config={"function": LAMBDA}),
    "a layer that reads a file": replaced(
        "pool", class_name="StringLookup", config={"vocabulary": "/etc/passwd"}
    ),
    "a layer around a layer": replaced(
        "pool", class_name="TimeDistributed", config={"layer": {"class_name": "Lambda"}}
    ),
    "a SavedModel in a layer": replaced(
        "pool", class_name="TFSMLayer", config={"filepath": "/tmp/x"}
    ),
    "a lambda as activation": configured("conv", activation=LAMBDA),
    "a function of a module as activation": configured(
        "conv",
        activation={"class_name": "function", "config": "system", "module": "os",
                    "registered_name": "system"},
    ),
    "a layer of code as activation": configured(
        "conv", activation={"class_name": "Lambda", "config": {"function": LAMBDA}}
    ),
    "a typespec": configured(
        "conv", strides={"class_name": "__typespec__", "spec_name": "Popen", "config": [],
                         "module": "subprocess", "registered_name": None},
    ),
    "a class among the numbers": configured(
        "conv", kernel_size=[{"class_name": "Popen", "module": "subprocess", "config": {}}]
    ),
    "a policy of another kind": configured(
        "conv", dtype={"class_name": "QuantizedDTypePolicy", "config": {"name": "int8_from_x"}}
    ),
    "a class in the place of a layer": lambda config: layer(config, "pool")["inbound_nodes"].append(
        {"class_name": "Popen", "module": "subprocess", "config": {}}
    ),
    "arguments are constants": replaced(
        "pool", inbound_nodes=[[["_CONSTANT_VALUE", -1, [[[[1.0]]]], {}]]]
    ),
    "arguments are constants, as Keras 3 has them": replaced(
        "pool", inbound_nodes=[{"args": [[[[[1.0]]]]], "kwargs": {}}]
    ),
    "an unknown activation": configured("top", activation="backend.eval"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gadget", GADGETS)
def test_what_is_not_permitted_is_refused_by_the_layers_name(
    gadget: str, form: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    path = changed(sources[form], tmp_path, GADGETS[gadget])
    with pytest.raises(DataError, match=r"layer '(conv|pool|top)' \(\w+\) cannot be imported: "):
        load_model_file(path)


@pytest.mark.parametrize("kind", ["LayerScale", "Custom>CustomScaleLayer", "PruneLowMagnitude"])
def test_a_class_that_users_meet_is_refused_with_the_mend(
    kind: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    path = changed(sources[".h52"], tmp_path, replaced("pool", class_name=kind))
    with pytest.raises(DataError, match=r"layer 'pool' .*: .*(contains its own code|save tfmot)"):
        load_model_file(path)


@pytest.mark.parametrize("form", FORMS)
def test_a_function_that_writes_a_file_is_not_called(
    form: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    target = tmp_path / "written"
    write = function("io.write_file", {"filename": str(target), "contents": "x"})
    path = changed(sources[form], tmp_path, write)
    with pytest.raises(DataError, match=r"layer 'pool' \(TFOpLambda\)"):
        load_model_file(path)
    assert not target.exists()


def test_a_function_that_only_computes_is_called(sources: dict[str, Path], tmp_path: Path) -> None:
    mean = function("math.reduce_mean", {"axis": [1, 2]})
    model = load_model_file(changed(sources[".keras2"], tmp_path, mean))
    expected = load_model_file(sources[".keras2"])
    np.testing.assert_allclose(np.asarray(model(PIXELS)), np.asarray(expected(PIXELS)), atol=1e-6)


def test_a_hidden_initializer_is_left_out(sources: dict[str, Path], tmp_path: Path) -> None:
    gadget = {"class_name": "Popen", "module": "subprocess", "config": {"args": "true"}}
    change = configured("conv", kernel_initializer=gadget, kernel_constraint=gadget)
    model = load_model_file(changed(sources[".keras3"], tmp_path, change))
    assert type(model.get_layer("conv").kernel_initializer).__name__ == "Zeros"
    assert np.ptp(model.get_layer("conv").get_weights()[0]) > 0  # the file's


# ---------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "change",
    [
        configured("top", units=2**40),
        configured("conv", filters=2**36),
        configured("conv", kernel_size=[2**17, 2**17], padding="same"),
    ],
)
def test_layers_larger_than_the_file_take_no_memory(
    change: Change, form: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(
        DataError, match=r"with more weights than the \d+ that it contains|is incompatible"
    ):
        load_model_file(changed(sources[form], tmp_path, change))


@pytest.mark.parametrize("form", [".keras2", ".keras3"])
def test_an_output_that_fills_the_memory_is_refused(
    form: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    def grow(config: dict[str, Any]) -> None:
        shape = config["config"]["layers"][0]["config"]
        shape["batch_input_shape" if form == ".keras2" else "batch_shape"] = [None, 2**20, 2**20, 3]

    with pytest.raises(DataError, match=r"layer 'image' returns .* for one image"):
        load_model_file(changed(sources[form], tmp_path, grow))


def test_a_long_description_is_not_read(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imported_config, "MAX_BYTES", 10_000)
    for form in FORMS:
        path = changed(sources[form], tmp_path, lambda config: config.update(note="x" * 20_000))
        with pytest.raises(DataError, match=r"expected at most 10,000"):
            load_model_file(path)


@pytest.mark.parametrize("kind", [bytes, str])  # of a fixed length, and of any
def test_a_long_description_in_hdf5_is_refused_before_it_is_read(
    kind: type, sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = changed(sources[".h52"], tmp_path, lambda config: None)
    with h5py.File(path, "r+") as file:
        text = file.attrs["model_config"] + " " * 300_000
        file.attrs["model_config"] = text.encode() if kind is bytes else text
    load_model_file(path)
    monkeypatch.setattr(imported_config, "MAX_BYTES", 200_000)
    monkeypatch.setattr(h5py.AttributeManager, "__getitem__", None)
    with pytest.raises(DataError, match=r"in 3\d\d,\d{3} bytes; expected at most 200,000"):
        load_model_file(path)


@pytest.mark.parametrize("levels", [300, 100_000])
def test_a_deep_description_is_refused(levels: int) -> None:
    with pytest.raises(DataError, match=r"levels|too deeply"):
        parse_description("[" * levels + "]" * levels, "model")


@pytest.mark.parametrize("text", ["5", "null", "true", '"a text"', "[]", "[[1], 2]"])
def test_a_description_that_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(
        DataError, match=r"net\.keras holds .* for a description; expected a \.keras"
    ):
        parse_description(text, "net.keras")


def test_models_in_models_that_double_each_time_are_refused() -> None:
    def twice(inner: dict[str, Any], depth: int) -> dict[str, Any]:
        """A model that calls another twice, in the notation of Keras 2."""
        entry = {"class_name": "InputLayer", "config": {"name": "in"}, "name": "in",
                 "inbound_nodes": []}  # fmt: skip
        called = {**inner, "name": "inner",
                  "inbound_nodes": [[["in", 0, 0, {}]], [["inner", 1, 0, {}]]]}  # fmt: skip
        config = {"name": f"level{depth}", "layers": [entry, called],
                  "input_layers": [["in", 0, 0]], "output_layers": [["inner", 2, 0]]}  # fmt: skip
        return {"class_name": "Functional", "config": config}

    model: dict[str, Any] = {"class_name": "ReLU", "config": {"name": "relu"}}
    for depth in range(10):
        model = twice(model, depth)
    permit_model(model, "2.15", "model.h5", modules=False)  # 1024 calls
    for depth in range(20):
        model = twice(model, depth)
    with pytest.raises(DataError, match=r"model\.h5 calls layers [\d,]{10,} times"):
        permit_model(model, "2.15", "model.h5", modules=False)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("nodes", ["", [[["top", 0, 0, {}]]], [[["conv", 7, 0, {}]]]])
def test_a_layer_whose_input_never_comes_does_not_hang(
    nodes: Any, form: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    """Without its own check, Keras 2 goes through the layers for ever."""
    path = changed(sources[form], tmp_path, replaced("conv", inbound_nodes=nodes))
    with pytest.raises(DataError, match=r"without an input|cannot be loaded|no known"):
        load_model_file(path)


def test_a_zip_bomb_is_not_unpacked(sources: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(sources[".keras2"]) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["model.weights.h5"] += bytes(2**24)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(DataError, match=r"model\.weights\.h5 declares 16,"):
        load_model_file(path)


def test_two_descriptions_in_one_file_are_refused(sources: dict[str, Path], tmp_path: Path) -> None:
    path = changed(sources[".keras2"], tmp_path, lambda config: None)
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("config.json", "{}")
    with pytest.raises(DataError, match="without Keras' metadata"):
        load_model_file(path)


def test_weights_that_lie_in_another_file_are_not_read(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(bytes(1000))
    path = changed(sources[".h52"], tmp_path, lambda config: None)
    with h5py.File(path, "r+") as file:
        group = file["model_weights/top/top"]
        shape, dtype = group["bias:0"].shape, group["bias:0"].dtype
        del group["bias:0"]
        group.create_dataset("bias:0", shape, dtype, external=[(str(tmp_path / "secret"), 0, 12)])
    with pytest.raises(DataError, match=r"'bias:0' of model2\.h5 is in another file"):
        load_model_file(path)
    with h5py.File(path, "r+") as file:
        del file["model_weights/top/top/bias:0"]
        file["model_weights/top/top/bias:0"] = h5py.ExternalLink(str(sources[".h53"]), "/x")
    with pytest.raises(DataError, match=r"links elsewhere with 'bias:0'"):
        load_model_file(path)


def test_weights_that_are_declared_but_not_stored_take_no_memory(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    path = changed(sources[".h52"], tmp_path, lambda config: None)
    with h5py.File(path, "r+") as file:
        file.create_dataset("model_weights/huge", (2**20, 2**20), "f4", chunks=(1024, 1024))
    with pytest.raises(DataError, match=r"'huge' of model2\.h5 declares 4,398"):
        load_model_file(path)


@pytest.mark.parametrize(
    ("group", "attribute"),
    [
        ("/", "model_config"),
        ("/", "keras_version"),
        ("/model_weights", "layer_names"),
        ("/model_weights", "backend"),
        ("/model_weights/top", "weight_names"),
    ],
)
def test_texts_that_may_all_be_the_same_long_one_are_not_read(
    group: str,
    attribute: str,
    sources: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In HDF5 a thousand texts of any length can be one: 4 MB then take 12 GB to read."""
    path = tmp_path / "model.h5"
    shutil.copy(sources[".h52"], path)
    texts = ["a" * 2**20, *map(str, range(2500))]
    with h5py.File(path, "r+") as file:
        file[group].attrs.create(attribute, texts, dtype=h5py.string_dtype())
    monkeypatch.setattr(h5py.AttributeManager, "__getitem__", None)
    with pytest.raises(DataError, match="an attribute of 2,501 values, which may take 2,"):
        load_model_file(path)


def test_a_list_of_lists_of_any_length_is_not_read(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "model.h5"
    shutil.copy(sources[".h52"], path)
    with h5py.File(path, "r+") as file:
        values = np.empty(1, object)
        values[0] = np.array([1, 2], np.uint8)
        kind = h5py.vlen_dtype(np.dtype("uint8"))
        file.attrs.create("keras_version", values, dtype=kind)
    with pytest.raises(DataError, match="an attribute of lists"):
        load_model_file(path)


def test_a_chunk_that_is_larger_than_its_array_takes_no_memory(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "model.h5"
    shutil.copy(sources[".h52"], path)
    with h5py.File(path, "r+") as file:
        weights = file["model_weights"]
        (name,) = (n for n in ("top/top/bias:0", "top/bias:0") if n in weights)
        values = weights[name][:]
        del weights[name]
        weights.create_dataset(
            name, data=values, maxshape=(None,), chunks=(2**23,), compression="gzip"
        )
    with pytest.raises(DataError, match=r"declares 33,554,432 bytes, but .* are stored"):
        load_model_file(path)


def test_a_saved_model_of_pipes_does_not_hang(sources: dict[str, Path], tmp_path: Path) -> None:
    path = changed(sources["folder2"], tmp_path, lambda config: None)
    file = path / "variables" / "variables.index"
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(DataError, match="is a named pipe"):
        load_model_file(path)


# --------------------------------------------------------------------------- one door


def engine(path: Path, size: int = 16) -> Path:
    """Let a ``.keras`` file say that it is an engine."""
    spec = EngineSpec(
        ("akiec", "bcc", "mel"), Preprocessing(size), "seven_class", "keras", "float32", "net", "s"
    )
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(MEMBER, dump_spec(spec))
    return path


def predict(path: Path) -> None:
    picture = path.parent / "picture.png"
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(picture)
    done = CliRunner().invoke(cli, ["predict", str(path), str(picture), "--quiet"])
    if isinstance(done.exception, Exception):
        raise done.exception


DOORS: dict[str, Callable[[Path], Any]] = {
    "predict": predict,
    "evaluate, bench and the teacher of distill": open_engine,
    "import": load_foreign_model,
    "the model of a workspace": load_model,
    "weights that are loaded": lambda path: copy_weights(None, path, "model-1"),
}


@pytest.mark.parametrize("door", DOORS)
def test_every_door_is_the_same(door: str, sources: dict[str, Path], tmp_path: Path) -> None:
    target = tmp_path / "written"
    write = function("io.write_file", {"filename": str(target), "contents": "x"})
    path = engine(changed(sources[".keras2"], tmp_path, write))
    with pytest.raises(DataError, match=r"layer 'pool' \(TFOpLambda\)"):
        DOORS[door](path)
    assert not target.exists()


def test_an_engine_that_keras_3_wrote_is_refused(sources: dict[str, Path]) -> None:
    with pytest.raises(DataError, match="was written by Keras 3"):
        load_model(sources[".keras3"])


def test_an_engine_of_another_size_than_it_says_is_refused(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    path = changed(sources[".keras2"], tmp_path, lambda config: None)
    with open_engine(engine(path)) as opened:
        assert opened.predict(np.zeros((1, 16, 16, 3), np.uint8)).shape == (1, 3)
    path = changed(sources[".keras2"], tmp_path, lambda config: None)
    with pytest.raises(
        DataError,
        match=r"takes \[16, 16, 3\] but its description has \[32, "
        r"32, 3\]",
    ):
        open_engine(engine(path, size=32))


LOADING = re.compile(
    r"(models|saving|keras)\.load_model|saving\.load_weights|saved_model\.load|deserialize_keras_object|model_from_(config|json)"
    r"|layers\.deserialize|SavedModel\w*\.load|TFSMLayer"
)


def test_no_other_module_lets_keras_load_a_model() -> None:
    files = [
        *ROOT.glob("toolkit/lesiontk/**/*.py"), *ROOT.glob("benchmarks/*.py"),
    ]  # fmt: skip
    found = {str(file.relative_to(ROOT)) for file in files if LOADING.search(file.read_text())}
    assert found == {"toolkit/lesiontk/models/imported_file.py"}
