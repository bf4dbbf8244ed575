"""Mobile tools find labels, normalization and licence where TFLite Metadata puts them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest

from lesiontk.backends import open_engine
from lesiontk.backends.input_quantization import InputQuantization
from lesiontk.backends.tflite.graph import read_metadata
from lesiontk.backends.tflite.metadata import (
    ENTRY,
    build_metadata,
    embed_metadata,
    read_input,
    read_labels,
)
from lesiontk.errors import DataError
from tests.conformance.fitted_models import SPEC, FittedParent

TinyParent = Callable[[str], FittedParent]
TARGETS = ("tflite:float32", "tflite:float16", "tflite:dynamic_int8", "tflite:int8",
           "tflite:int16x8")  # fmt: skip


class Reader:
    """A table of the metadata, read by the places that the schema gives its fields."""

    def __init__(self, data: bytes, place: int | None = None) -> None:
        self.data = data
        if place is None:
            assert flatbuffers.util.BufferHasIdentifier(data, 0, b"M001")
            place = flatbuffers.encode.Get(flatbuffers.packer.uoffset, data, 0)
        self.table = flatbuffers.table.Table(bytearray(data), place)

    def _place(self, slot: int) -> int:
        offset = self.table.Offset(4 + 2 * slot)
        assert offset, f"field {slot} is missing"
        return int(self.table.Pos + offset)

    def text(self, slot: int) -> str:
        return str(self.table.String(self._place(slot)).decode())

    def number(self, slot: int, flags: Any = flatbuffers.number_types.Uint8Flags) -> int:
        return int(self.table.Get(flags, self._place(slot)))

    def inner(self, slot: int) -> Reader:
        return Reader(self.data, self.table.Indirect(self._place(slot)))

    def items(self, slot: int) -> list[Reader]:
        offset = self._place(slot) - self.table.Pos
        start = self.table.Vector(offset)
        length = self.table.VectorLen(offset)
        return [Reader(self.data, self.table.Indirect(start + 4 * i)) for i in range(length)]

    def floats(self, slot: int) -> list[float]:
        offset = self._place(slot) - self.table.Pos
        flags = flatbuffers.number_types.Float32Flags
        return self.table.GetVectorAsNumpy(flags, offset).tolist()  # type: ignore[no-any-return]


def read(content: bytes) -> Reader:
    data = read_metadata(content, ENTRY)
    assert data is not None
    return Reader(data)


@pytest.mark.parametrize("target", TARGETS)
def test_every_engine_says_what_it_is(target: str, tiny_parent: TinyParent) -> None:
    content = tiny_parent("cnn").convert(target).read_bytes()
    model = read(content)
    precision = target.partition(":")[2]
    assert model.text(0) == f"fitted {precision}"
    assert "not a medical device" in model.text(1)
    assert model.text(5) == SPEC.licence
    assert model.text(7) == "1.0.0"
    (subgraph,) = model.items(3)
    (entry,), (result,) = subgraph.items(2), subgraph.items(3)
    assert entry.text(0) == "image"
    assert result.text(0) == "probability"
    content_of_image = entry.inner(3)
    assert content_of_image.number(0) == 2  # ImageProperties
    image = content_of_image.inner(1)
    assert image.number(0) == 1  # RGB
    size = [image.inner(1).number(i, flatbuffers.number_types.Uint32Flags) for i in (0, 1)]
    assert size == [32, 32]
    (labels,) = result.items(6)
    assert labels.text(0) == "labels.txt"
    assert labels.number(2) == 2  # TENSOR_AXIS_LABELS


@pytest.mark.parametrize("target", TARGETS)
def test_the_labels_are_packed_behind_the_model(target: str, tiny_parent: TinyParent) -> None:
    path = tiny_parent("cnn").convert(target)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["labels.txt"]
        assert archive.read("labels.txt").decode().split() == list(SPEC.labels)
    assert read_labels(path.read_bytes()) == SPEC.labels


@pytest.mark.parametrize("name", ["cnn", "lite", "resnet", "vgg"])
@pytest.mark.parametrize("target", ["tflite:float32", "tflite:int8", "tflite:int16x8"])
def test_normalizing_and_quantizing_gives_back_the_byte(
    name: str, target: str, tiny_parent: TinyParent
) -> None:
    """What mobile tools do with a picture: (x - mean) / std, then the input's own scale."""
    content = tiny_parent(name).convert(target).read_bytes()
    (subgraph,) = read(content).items(3)
    (unit,) = subgraph.items(2)[0].items(4)
    assert unit.number(0) == 1  # NormalizationOptions
    (mean,), (deviation,) = unit.inner(1).floats(0), unit.inner(1).floats(1)
    byte = read_input(content)
    pixels = np.arange(256, dtype=np.float32)
    fed = (pixels - mean) / deviation / byte.scale + byte.zero_point
    np.testing.assert_allclose(fed, pixels, atol=1e-3)
    if target != "tflite:float32" and name == "cnn":
        assert (mean, deviation) == (128.0, 128.0)


def test_another_input_has_another_normalization() -> None:
    one, other = (build_metadata(SPEC, InputQuantization(scale, 3)) for scale in (0.5, 0.25))
    assert one != other


def test_labels_in_another_order_are_refused(tiny_parent: TinyParent, tmp_path: Path) -> None:
    content = tiny_parent("cnn").convert("tflite:int8").read_bytes()
    archive = io.BytesIO(content[: content.rindex(b"PK\x03\x04")])
    archive.seek(0, io.SEEK_END)
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr("labels.txt", "\n".join(reversed(SPEC.labels)))
    (tmp_path / "swapped.tflite").write_bytes(archive.getvalue())
    with pytest.raises(DataError, match=r"swapped\.tflite has the labels vasc, nv, .* for mobile"):
        open_engine(tmp_path / "swapped.tflite")


def test_labels_that_were_cut_off_are_missed(tiny_parent: TinyParent, tmp_path: Path) -> None:
    content = tiny_parent("cnn").convert("tflite:int8").read_bytes()
    (tmp_path / "cut.tflite").write_bytes(content[: content.rindex(b"PK\x03\x04")])
    with pytest.raises(DataError, match=r"cut\.tflite is damaged: .* labels\.txt"):
        open_engine(tmp_path / "cut.tflite")


def test_a_file_of_others_has_no_labels(tiny_parent: TinyParent) -> None:
    content = tiny_parent("cnn").convert("tflite:float32").read_bytes()
    bare = content.replace(ENTRY.encode(), b"T" * len(ENTRY))
    assert read_labels(bare) is None


def test_embedding_twice_leaves_one_entry(tiny_parent: TinyParent) -> None:
    content = tiny_parent("cnn").convert("tflite:float32").read_bytes()
    again = embed_metadata(content, SPEC)
    with zipfile.ZipFile(io.BytesIO(again)) as archive:
        assert archive.namelist() == ["labels.txt"]
    assert len(again) <= len(content) + 16  # an emptied buffer stays in the list
