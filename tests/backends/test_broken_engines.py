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
from click.testing import CliRunner

from lesiontk.backends import open_engine
from lesiontk.backends.backend import SPEC_KEY
from lesiontk.backends.tflite_graph import extract_spec, set_metadata
from lesiontk.backends.tflite_metadata import embed_metadata
from lesiontk.cli.main import cli
from lesiontk.errors import DataError, LesionTKError

from ..deploy.bundles import ENGINES

SEED, MUTATIONS = 7, 60
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
        (Path.touch, r"is no intact \.keras|is not a TFLite|is no model ONNX Runtime can load"),
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
        "bundle": ["bundle", str(path), "--target", "linux-arm64", "--out", str(tmp_path / "b")],
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
    "no JSON": (b"{'labels'", "is no valid JSON"),
    "deep": (b"[" * 100_000, "is nested too deeply"),
    "a number": (b"5", "cannot read"),
    "NaN": (b'{"labels": NaN}', "NaN is not a finite number"),
    **{
        name: (json.dumps({**SPEC, **change}).encode(), said)
        for name, change, said in [
            ("labels as text", {"labels": "abcdefg"}, "the labels are no list"),
            ("labels as numbers", {"labels": [*range(7)]}, "expected two or more different names"),
            ("labels in lists", {"labels": [[1], *range(6)]}, "expected two or more different"),
            ("an empty label", {"labels": ["", *SEVEN[1:]]}, "expected two or more different"),
            ("a label twice", {"labels": ["a"] * 7}, "expected two or more different names"),
            ("no task", {"task": None}, "task is None; expected a text"),
            ("a list for a recipe", {"recipe": ["a"]}, "expected a text"),
            ("extra", {"extra": 5}, "extra is 5; expected a mapping"),
            ("an unknown key", {"colour": "BGR"}, "cannot read"),
            (
                "size as text",
                {"preprocessing": {**SPEC["preprocessing"], "image_size": "64"}},
                "image_size is 64; expected 8 to 2048",
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
        ["bundle", str(path), "--target", "linux-arm64", "--out", str(tmp_path / "bundle")],
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
    with pytest.raises(DataError, match="failed while it computed"):
        answer(path)


def test_weights_in_another_file_are_not_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "onnx_int8.onnx"
    model = onnx.load(ONNX)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=1024)
    words = ["bundle", str(path), "--target", "linux-arm64", "--out", str(tmp_path / "bundle")]
    done = CliRunner().invoke(cli, words)
    assert isinstance(done.exception, DataError)
    assert "keeps weights in weights.bin; a bundle needs them in one file" in str(done.exception)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(DataError, match="is no model ONNX Runtime can load"):
        answer(path)


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
