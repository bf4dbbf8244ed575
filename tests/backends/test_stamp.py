"""Threshold, temperature and figures inside an engine file: exact, bound to it, and optional."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesiontk.backends import find_backend, open_engine
from lesiontk.backends.backend import dump_spec
from lesiontk.backends.file_records import (
    add_to_archive,
    add_to_onnx,
    split_archive,
    split_onnx,
)
from lesiontk.backends.onnx.graph import embed_spec
from lesiontk.backends.stamp import stamp
from lesiontk.backends.tflite.metadata import read_labels
from lesiontk.errors import DataError, LesionTKError
from lesiontk.evaluate.assessment import FORMAT, Assessment
from lesiontk.evaluate.operating_point import GIVEN, OperatingPoint
from tests.backends.assessments import KNOWN, POINT, RESULT
from tests.deploy.bundles import ENGINES

FILES = ("tflite_int8.tflite", "onnx_int8.onnx", "tensorrt_int8.onnx", "keras_float32.keras")


# ----------------------------------------------------------------- the record


@pytest.mark.parametrize(
    "assessment",
    [KNOWN, Assessment(), replace(KNOWN, test=None), replace(KNOWN, operating_point=None)],
)
def test_a_record_reads_what_it_wrote(assessment: Assessment) -> None:
    assert Assessment.parse(assessment.dump()) == assessment


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": FORMAT + 1}, f"format {FORMAT + 1}; this lesiontk reads {FORMAT}. Use a newer"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": "hot"}, "temperature is 'hot'"),
        ({"operating_point": {"rule": "youden"}}, "cannot be read"),
        ({"operating_point": {**POINT.to_document(), "threshold": 7.0}}, "threshold is 7.0"),
        ({"test": {"n": 3}}, "cannot be read"),
    ],
)
def test_another_document_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(LesionTKError, match=said):
        Assessment.parse(json.dumps({**KNOWN.to_document(), **change}))


def test_a_threshold_of_ones_own_takes_the_measured_sensitivity_away() -> None:
    mine = KNOWN.with_threshold(0.4, ("mel",))
    assert mine.operating_point == OperatingPoint(GIVEN, 0.4, ("mel",))
    assert mine.test is not None
    assert (mine.test.metrics, mine.test.at_threshold) == (RESULT.metrics, {})
    assert mine.temperature == KNOWN.temperature


# ------------------------------------------------------------------- the files


@pytest.mark.parametrize("name", FILES)
def test_a_file_carries_it_and_is_otherwise_unchanged(name: str, tmp_path: Path) -> None:
    source, out = ENGINES / name, tmp_path / name
    written = stamp(source, KNOWN, out)
    backend = find_backend(out)()
    assert backend.split_record(out.read_bytes())[0] == source.read_bytes()
    assert backend.read_assessment(out) == written == replace(KNOWN, content=written.content)
    again = stamp(out, KNOWN.with_threshold(0.4, ("mel",)), out)
    assert again.content == written.content
    assert backend.read_assessment(out) == again
    assert backend.read_assessment(source) is None


@pytest.mark.parametrize("name", FILES[:3])
def test_an_engine_tells_it_and_answers_as_before(name: str, tmp_path: Path) -> None:
    stamp(ENGINES / name, KNOWN, tmp_path / name)
    with open_engine(ENGINES / name) as before, open_engine(tmp_path / name) as after:
        images = np.random.default_rng(0).integers(0, 256, (2, *before.spec.input_shape), np.uint8)
        np.testing.assert_array_equal(before.predict(images), after.predict(images))
        assert (before.assessment, after.spec) == (None, before.spec)
        assert after.assessment is not None
        assert after.assessment.operating_point == POINT


def test_other_tools_still_read_the_files(tmp_path: Path) -> None:
    for name in FILES:
        stamp(ENGINES / name, KNOWN, tmp_path / name)
    assert read_labels((tmp_path / FILES[0]).read_bytes()) is not None
    onnx.checker.check_model(onnx.load(tmp_path / FILES[1]))
    with zipfile.ZipFile(tmp_path / FILES[3]) as archive:
        assert archive.testzip() is None


@pytest.mark.parametrize("name", FILES[:2])
def test_figures_of_another_file_are_refused(name: str, tmp_path: Path) -> None:
    """The engine is changed behind its figures: they are no longer of it."""
    path = tmp_path / name
    stamp(ENGINES / name, KNOWN, path)
    if path.suffix == ".onnx":
        model = onnx.load(path)
        with open_engine(path) as engine:
            embed_spec(model, dump_spec(replace(engine.spec, recipe="another")))
        onnx.save(model, path)
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.raises(DataError, match="was changed after its threshold and figures"):
        open_engine(path)


def test_a_threshold_of_labels_that_the_engine_lacks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / FILES[0]
    stamp(ENGINES / FILES[0], KNOWN.with_threshold(0.4, ("malignant",)), path)
    with pytest.raises(
        DataError, match=r"threshold's labels are malignant; expected some, not all, of .* akiec"
    ):
        open_engine(path)


def test_a_file_that_older_versions_wrote_opens(tmp_path: Path) -> None:
    shutil.copyfile(ENGINES / FILES[0], tmp_path / FILES[0])
    with open_engine(tmp_path / FILES[0]) as engine:
        assert engine.assessment is None


# ------------------------------------------------------------------ the bytes


def archive_of(members: dict[str, bytes], before: bytes) -> bytes:
    stream = io.BytesIO(before)
    stream.seek(0, io.SEEK_END)
    with zipfile.ZipFile(stream, "a") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


@given(st.binary(max_size=300), st.text(max_size=50), st.booleans())
def test_an_archive_gives_both_back(before: bytes, text: str, filled: bool) -> None:
    content = archive_of({"a.txt": b"a"} if filled else {}, before) if filled else before
    if split_archive(content)[1] is None and b"PK\x05\x06" not in before:
        made = add_to_archive(content, text)
        assert split_archive(made) == (content, text)
        assert zipfile.is_zipfile(io.BytesIO(made))


@given(st.binary(max_size=300), st.text(max_size=50))
def test_a_protobuf_gives_both_back(value: bytes, text: str) -> None:
    model = onnx.ModelProto(producer_name=value.hex())
    model.metadata_props.add(key="other", value=value.hex())
    content = model.SerializeToString()
    made = add_to_onnx(content, text)
    assert split_onnx(made) == (content, text)
    read = onnx.ModelProto.FromString(made)
    assert [entry.key for entry in read.metadata_props] == ["other", "lesiontk_assessment"]
    assert read.metadata_props[1].value == text


@given(st.binary(max_size=200))
def test_bytes_of_anything_are_left_as_they_are(content: bytes) -> None:
    for split in (split_archive, split_onnx):
        rest, text = split(content)
        assert (rest == content) is (text is None)


def test_a_record_longer_than_a_comment_is_refused() -> None:
    with pytest.raises(DataError, match="expected at most 65535"):
        add_to_archive(b"", "x" * 70_000)
