"""An engine file that is broken, or is none, is refused with the reason; nothing else escapes."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from click.testing import CliRunner
from onnx import helper

from lesiontk.backends import find_backend, open_any, open_engine
from lesiontk.backends.backend import SPEC_KEY
from lesiontk.backends.foreign import ForeignDescription
from lesiontk.backends.onnx.graph import check_closed
from lesiontk.backends.tflite.graph import (
    check_no_loop,
    dump_model,
    extract_spec,
    read_model,
    set_metadata,
)
from lesiontk.backends.tflite.metadata import embed_metadata
from lesiontk.backends.tflite.tensor_sizes import check_tensor_sizes
from lesiontk.cli.main import cli
from lesiontk.errors import DataError, LesionTKError
from tests.deploy.bundles import ENGINES

SEED, MUTATIONS = 7, 60
FLOAT = onnx.TensorProto.FLOAT
TFLITE, ONNX = ENGINES / "tflite_int8.tflite", ENGINES / "onnx_int8.onnx"


def answer(path: Path) -> None:
    with open_engine(path) as engine:
        engine.predict(np.zeros((1, *engine.spec.input_shape), np.uint8))


@pytest.mark.parametrize("suffix", [".tflite", ".onnx", ".keras"])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.symlink_to(path.name), "is a symbolic link that leads back to itself"),
        (os.mkfifo, "is a named pipe; expected a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device; expected a regular file"),
        (Path.mkdir, "is a folder; expected a regular file"),
        (lambda path: None, "does not exist"),
        (
            Path.touch,
            r"is not an intact \.keras|is not a TFLite|is not a model that ONNX Runtime "
            r"can load",
        ),
    ],
    ids=["loop", "pipe", "device", "folder", "nothing", "empty"],
)
@pytest.mark.parametrize("command", ["predict", "bundle"])
def test_what_is_no_engine_is_not_opened(
    command: str, make: Callable[[Path], object], said: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"engine{suffix}"
    make(path)
    words = {
        "predict": ["predict", str(path), "picture.png"],
        "bundle": [
            "bundle",
            str(path),
            "--research-override",
            "--target",
            "linux-arm64",
            "--out",
            str(tmp_path / "b"),
        ],
    }[command]
    done = CliRunner().invoke(cli, words)
    assert isinstance(done.exception, DataError)
    with pytest.raises(DataError, match=said):
        raise done.exception


# ------------------------------------------------------------- descriptions


def describe_tflite(out: Path, text: bytes) -> None:
    content = set_metadata(TFLITE.read_bytes(), SPEC_KEY, text)
    with open_engine(TFLITE) as engine:
        out.write_bytes(embed_metadata(content, engine.spec))


def describe_onnx(out: Path, text: bytes) -> None:
    model = onnx.load(ONNX)
    del model.metadata_props[:]
    text = text.ljust(40)  # so long that the placeholder is nowhere else
    placeholder = "x" * len(text)
    model.metadata_props.add(key=SPEC_KEY, value=placeholder)
    out.write_bytes(model.SerializeToString().replace(placeholder.encode(), text))


DESCRIBE = {".tflite": describe_tflite, ".onnx": describe_onnx}
SPEC = json.loads(extract_spec(TFLITE.read_bytes()) or b"")
SEVEN = [f"l{number}" for number in range(7)]
TEXTS: dict[str, tuple[bytes, str]] = {
    "no UTF-8": (b"\xff\xfe{}", "UTF-8|utf-8"),
    "no JSON": (b"{'labels'", "is not valid JSON"),
    "deep": (b"[" * 100_000, "is nested too deeply"),
    "a number": (b"5", "cannot read"),
    "NaN": (b'{"labels": NaN}', "NaN is not a finite number"),
    **{
        name: (json.dumps({**SPEC, **change}).encode(), said)
        for name, change, said in [
            ("labels as text", {"labels": "abcdefg"}, "the labels are not a list"),
            ("labels as numbers", {"labels": [*range(7)]}, "expected two or more different names"),
            ("labels in lists", {"labels": [[1], *range(6)]}, "expected two or more different"),
            ("an empty label", {"labels": ["", *SEVEN[1:]]}, "expected two or more different"),
            ("a label twice", {"labels": ["a"] * 7}, "expected two or more different names"),
            (
                "a label that clears the screen",
                {"labels": ["\x1b[2J", *SEVEN[1:]]},
                "expected names without control characters",
            ),
            (
                "a notice that names the window",
                {"notice": "\x1b]0;title\x07"},
                "expected text without control characters",
            ),
            ("no task", {"task": None}, "task is None; expected text"),
            ("a list for a recipe", {"recipe": ["a"]}, "expected text"),
            ("extra", {"extra": 5}, "extra is 5; expected a mapping"),
            ("an unknown key", {"colour": "BGR"}, "cannot read"),
            (
                "size as text",
                {"preprocessing": {**SPEC["preprocessing"], "image_size": "64"}},
                r"image_size is '64' \(Input should be a valid integer\)",
            ),
        ]
    },
}


@pytest.mark.parametrize("suffix", DESCRIBE)
@pytest.mark.parametrize("name", TEXTS)
def test_another_description_is_refused(name: str, suffix: str, tmp_path: Path) -> None:
    text, said = TEXTS[name]
    path = tmp_path / f"engine{suffix}"
    DESCRIBE[suffix](path, text)
    with pytest.raises(DataError, match=said):
        answer(path)
    DESCRIBE[suffix](path, json.dumps(SPEC).encode())  # the twin: it is the text that is refused
    answer(path)


@pytest.mark.parametrize("labels", [SEVEN[:3], [*SEVEN, "l8"]])
def test_labels_of_another_number_than_outputs_are_refused(
    labels: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "onnx_int8.onnx"
    describe_onnx(path, json.dumps({**SPEC, "backend": "onnx", "labels": labels}).encode())
    for words in (
        [
            "bundle",
            str(path),
            "--research-override",
            "--target",
            "linux-arm64",
            "--out",
            str(tmp_path / "bundle"),
        ],
        ["evaluate", str(path), "--images", str(tmp_path)],
    ):
        done = CliRunner().invoke(cli, words)
        assert isinstance(done.exception, LesionTKError)
        assert done.exception.exit_code == 2
    assert not (tmp_path / "bundle").exists()
    with pytest.raises(DataError, match=rf"returns \[1, 7\]; expected \[1, {len(labels)}\]"):
        answer(path)


def test_images_of_another_size_than_the_graph_takes_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "onnx_int8.onnx"
    other = {**SPEC, "preprocessing": {**SPEC["preprocessing"], "image_size": 64}}
    describe_onnx(path, json.dumps(other).encode())
    with pytest.raises(DataError, match="failed during inference"):
        answer(path)


@pytest.mark.parametrize("command", ["bundle", "predict", "bench"])
def test_weights_in_another_file_are_not_read(command: str, tmp_path: Path) -> None:
    """The checksum of an engine file is of all that it answers with."""
    path = tmp_path / "onnx_int8.onnx"
    model = onnx.load(ONNX)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=1024)
    words = {
        "bundle": [
            "bundle",
            str(path),
            "--research-override",
            "--target",
            "linux-arm64",
            "--out",
            str(tmp_path / "new"),
        ],
        "predict": ["predict", str(path), "picture.png"],
        "bench": ["bench", str(path)],
    }
    done = CliRunner().invoke(cli, words[command])
    assert isinstance(done.exception, DataError)
    assert "keeps weights in weights.bin; expected all in one file" in str(done.exception)


def save_onnx(
    path: Path,
    nodes: list[onnx.NodeProto],
    constants: list[onnx.TensorProto],
    kind: int = onnx.TensorProto.UINT8,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, [1, 8, 8, 3])],
        [helper.make_tensor_value_info("out", kind, None)],
        constants,
    )
    opset = [helper.make_opsetid("", 17)]
    path.write_bytes(helper.make_model(graph, opset_imports=opset).SerializeToString())
    return path


def endless(kind: str) -> onnx.NodeProto:
    body = helper.make_graph(
        [helper.make_node("Identity", [a], [b]) for a, b in (("go", "on"), ("x", "y"))],
        "body",
        [
            helper.make_tensor_value_info("turn", onnx.TensorProto.INT64, []),
            helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, None),
        ],
        [
            helper.make_tensor_value_info("on", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", onnx.TensorProto.UINT8, None),
        ],
    )
    return helper.make_node(kind, ["", "true", "image"], ["out"], body=body)


@pytest.mark.parametrize("inner", [False, True])
def test_an_onnx_graph_with_a_loop_is_refused(inner: bool, tmp_path: Path) -> None:
    true = onnx.numpy_helper.from_array(np.array(True), "true")
    node = endless("Loop")
    if inner:
        node.output[0] = "inside"
        out = [helper.make_tensor_value_info("inside", onnx.TensorProto.UINT8, None)]
        branch = helper.make_graph([node], "branch", [], out)
        node = helper.make_node("If", ["true"], ["out"], then_branch=branch, else_branch=branch)
    path = save_onnx(tmp_path / "endless.onnx", [node], [true])
    with pytest.raises(DataError, match=r"has the operator Loop .* expected a graph without loops"):
        open_any(path, ForeignDescription())


def test_a_tflite_graph_with_a_loop_is_refused(tmp_path: Path) -> None:
    model = read_model(TFLITE.read_bytes())
    code = model.operatorCodes[-1]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.WHILE
    path = tmp_path / "endless.tflite"
    path.write_bytes(dump_model(model))
    with pytest.raises(DataError, match=r"has the operator WHILE, .* expected a graph without"):
        check_no_loop(path.read_bytes(), path)
    check_no_loop(TFLITE.read_bytes(), TFLITE)  # the twin


def constants(**values: object) -> list[onnx.TensorProto]:
    return [
        onnx.numpy_helper.from_array(np.asarray(value, np.int64), name)
        for name, value in values.items()
    ]


LARGE: dict[str, Callable[[int], tuple[list[onnx.NodeProto], list[onnx.TensorProto]]]] = {
    "ConstantOfShape": lambda n: (
        [helper.make_node("ConstantOfShape", ["n"], ["out"])], constants(n=[n, n])
    ),
    "Expand": lambda n: (
        [helper.make_node("Expand", ["one", "n"], ["out"])], constants(one=[[1]], n=[n, n])
    ),
    "Tile": lambda n: (
        [helper.make_node("Tile", ["one", "n"], ["out"])], constants(one=[[1]], n=[n, n])
    ),
    "Range": lambda n: (
        [helper.make_node("Range", ["zero", "n", "one"], ["out"])],
        constants(zero=0, n=n * n, one=1),
    ),
    "a sum that is broadcast": lambda n: (
        [
            helper.make_node("ConstantOfShape", ["across"], ["a"]),
            helper.make_node("ConstantOfShape", ["down"], ["b"]),
            helper.make_node("Add", ["a", "b"], ["out"]),
        ],
        constants(across=[1, n], down=[n, 1]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LARGE)
def test_an_onnx_graph_that_makes_a_tensor_beyond_memory_is_refused(
    kind: str, tmp_path: Path
) -> None:
    value = onnx.TensorProto.INT64 if kind in ("Expand", "Tile", "Range") else FLOAT
    path = save_onnx(tmp_path / "large.onnx", *LARGE[kind](40_000), value)
    with pytest.raises(DataError, match=r"large\.onnx has a tensor of 1\.6e\+09 values, out"):
        check_closed(path)
    check_closed(save_onnx(tmp_path / "small.onnx", *LARGE[kind](100), value))  # the twin


def add_fill(kind: int, values: list[list[int]]) -> bytes:
    """Return a flatbuffer with one more operator, whose inputs are these constants."""
    model = read_model(TFLITE.read_bytes())
    graph = model.subgraphs[0]
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode = kind, min(kind, 127)
    code.version = 2 if kind == schema.BuiltinOperator.BROADCAST_TO else 1
    model.operatorCodes.append(code)
    places = []
    for value in [*values, []]:
        buffer, tensor = schema.BufferT(), schema.TensorT()
        buffer.data = np.frombuffer(np.array(value, np.int32).tobytes(), np.uint8)
        tensor.buffer, tensor.type = len(model.buffers), schema.TensorType.INT32
        tensor.shape, tensor.name = [len(value)] if value else [], b"filled"
        model.buffers.append(buffer)
        places.append(len(graph.tensors))
        graph.tensors.append(tensor)
    graph.tensors[places[-1]].buffer = 0  # an output has none
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = places[:-1], places[-1:]
    graph.operators.append(operator)
    return dump_model(model)


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        (schema.BuiltinOperator.FILL, lambda n: [[n, n], [1]]),
        (schema.BuiltinOperator.BROADCAST_TO, lambda n: [[1], [n, n]]),
        (schema.BuiltinOperator.TILE, lambda n: [[1], [n, n]]),
        (schema.BuiltinOperator.RANGE, lambda n: [[0], [n * n], [1]]),
    ],
    ids=["FILL", "BROADCAST_TO", "TILE", "RANGE"],
)
def test_a_tflite_graph_that_makes_a_tensor_beyond_memory_is_refused(
    kind: int, inputs: Callable[[int], list[list[int]]], tmp_path: Path
) -> None:
    path = tmp_path / "large.tflite"
    path.write_bytes(add_fill(kind, inputs(40_000)))
    with pytest.raises(DataError, match=r"large\.tflite has a tensor of 1\.6e\+09 values, filled"):
        open_engine(path)
    check_tensor_sizes(add_fill(kind, inputs(100)), path)  # the twin


def test_a_tensor_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    """LiteRT computes with it, but cannot list its operators."""
    content, _ = find_backend(TFLITE)().split_record(TFLITE.read_bytes())
    model = read_model(content)
    (graph,) = model.subgraphs
    name = bytes(graph.tensors[graph.operators[0].outputs[0]].name)
    path = tmp_path / "damaged.tflite"
    path.write_bytes(content.replace(name, name[:-1] + b"\xe4"))
    with pytest.raises(
        DataError, match=r"damaged\.tflite is damaged: the name b'.*xe4' of a tensor"
    ):
        open_engine(path)


def test_a_tflite_graph_that_describes_a_tensor_beyond_memory_is_refused(tmp_path: Path) -> None:
    model = read_model(TFLITE.read_bytes())
    graph = model.subgraphs[0]
    graph.tensors[graph.operators[0].outputs[0]].shape = [1, 1 << 15, 1 << 15, 3]
    with pytest.raises(DataError, match=r"has a tensor of 3\.22e\+09 values"):
        check_tensor_sizes(dump_model(model), TFLITE)


# ---------------------------------------------------------------------- fuzz


@pytest.mark.parametrize("source", [TFLITE, ONNX], ids=lambda path: str(path.suffix))
def test_changed_bytes_are_refused_or_answered_with_probabilities(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    random, content = np.random.default_rng(SEED), source.read_bytes()
    path, found = tmp_path / source.name, Counter[str]()
    for turn in range(MUTATIONS):
        changed = bytearray(content)
        if turn % 5 == 0:
            changed = changed[: random.integers(len(content))]
        else:  # headers lie in front, descriptions behind
            spans: Any = [(0, len(content)), (0, 2000), (len(content) - 4000, len(content))]
            changed[random.integers(*spans[turn % 3])] ^= 1 << int(random.integers(8))
        path.write_bytes(changed)
        try:
            answer(path)
            found["answered"] += 1
        except DataError:
            found["refused"] += 1
    assert found["answered"] >= MUTATIONS / 10
    assert found["refused"] >= MUTATIONS / 10
    assert capfd.readouterr().out == ""  # --json has standard output to itself


@pytest.mark.parametrize("length", [0, 6, 9, 40, 400])
def test_the_description_of_a_cut_flatbuffer_is_a_clear_error(length: int, tmp_path: Path) -> None:
    path = tmp_path / "cut.tflite"
    path.write_bytes(TFLITE.read_bytes()[:length])
    with pytest.raises(DataError, match=r"cut\.tflite"):
        find_backend(path)().read_spec(path)
