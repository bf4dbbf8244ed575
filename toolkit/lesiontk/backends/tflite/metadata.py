"""Model metadata for mobile tools in a TFLite file: labels, normalization, licence.

The schema is TFLite Metadata 1.0 (``metadata_schema.fbs`` of tflite-support, file identifier
``M001``): a flatbuffer under the name ``TFLITE_METADATA``, and the label file in a ZIP archive
behind the model. The few tables that an image classifier needs are written here, because the
package for it is deprecated.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Final

import flatbuffers

from lesiontk.backends.input_quantization import InputQuantization
from lesiontk.backends.tflite.graph import read_metadata, read_model, set_metadata
from lesiontk.errors import DataError
from lesiontk.records import EngineSpec

ENTRY: Final = "TFLITE_METADATA"
IDENTIFIER: Final = b"M001"
LABELS: Final = "labels.txt"
PARSER_VERSION: Final = "1.0.0"

# Field numbers in their tables, and members of the unions, from the schema.
MODEL: Final = {"name": 0, "description": 1, "version": 2, "subgraph_metadata": 3, "author": 4,
                "license": 5, "associated_files": 6, "min_parser_version": 7}  # fmt: skip
SUBGRAPH: Final = {"input_tensor_metadata": 2, "output_tensor_metadata": 3}
TENSOR: Final = {"name": 0, "description": 1, "content": 3, "process_units": 4, "stats": 5,
                 "associated_files": 6}  # fmt: skip
CONTENT: Final = {"type": 0, "value": 1}
FEATURE, IMAGE = 1, 2
IMAGE_PROPERTIES: Final = {"color_space": 0, "default_size": 1}
RGB: Final = 1
SIZE: Final = {"width": 0, "height": 1}
PROCESS: Final = {"type": 0, "value": 1}
NORMALIZATION: Final = 1
NORMALIZATION_OPTIONS: Final = {"mean": 0, "std": 1}
STATS: Final = {"max": 0, "min": 1}
FILE: Final = {"name": 0, "description": 1, "type": 2}
TENSOR_AXIS_LABELS: Final = 2


def embed_metadata(content: bytes, spec: EngineSpec) -> bytes:
    """Return the file with the metadata of `spec`, and the labels appended."""
    with_table = set_metadata(content, ENTRY, build_metadata(spec, read_input(content)))
    archive = io.BytesIO(with_table)
    archive.seek(0, io.SEEK_END)
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr(zipfile.ZipInfo(LABELS), "".join(f"{name}\n" for name in spec.labels))
    return archive.getvalue()


def read_labels(content: bytes) -> tuple[str, ...] | None:
    """Return the labels in the appended archive, or None without metadata.

    Raises `DataError` for metadata without labels.
    """
    if read_metadata(content, ENTRY) is None:
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            return tuple(packed.read(LABELS).decode().splitlines())
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise DataError(f"its metadata refers to {LABELS}, which is missing: {error}") from error


def read_input(content: bytes) -> InputQuantization:
    """Return the quantization of an input byte; the identity if the graph normalizes."""
    graph = read_model(content).subgraphs[0]
    parameters = graph.tensors[graph.inputs[0]].quantization
    if parameters is None or parameters.scale is None or len(parameters.scale) == 0:
        return InputQuantization()
    return InputQuantization(float(parameters.scale[0]), int(parameters.zeroPoint[0]))


def build_metadata(spec: EngineSpec, byte: InputQuantization) -> bytes:
    """Return the metadata flatbuffer.

    Tools feed ``quantize((x - mean) / std)``. With mean and deviation from the input's scale and
    zero point that is the byte itself, the input of every engine.
    """
    writer = _Writer()
    size = spec.preprocessing.image_size
    image = writer.table(
        IMAGE_PROPERTIES,
        bytes_={"color_space": RGB},
        offsets={"default_size": writer.table(SIZE, numbers={"width": size, "height": size})},
    )
    options = writer.table(
        NORMALIZATION_OPTIONS,
        offsets={
            "mean": writer.floats([float(byte.zero_point)]),
            "std": writer.floats([1.0 / byte.scale]),
        },
    )
    unit = writer.table(PROCESS, bytes_={"type": NORMALIZATION}, offsets={"value": options})
    entry = writer.table(
        TENSOR,
        offsets={
            "name": writer.text("image"),
            "description": writer.text(
                f"uint8 RGB [1, {size}, {size}, 3]; crop mode: {spec.preprocessing.crop_mode}, "
                f"interpolation: "
                f"{spec.preprocessing.interpolation}, enhancement: "
                f"{', '.join(spec.preprocessing.enhance) or 'none'}"
            ),
            "content": writer.table(CONTENT, bytes_={"type": IMAGE}, offsets={"value": image}),
            "process_units": writer.vector([unit]),
            "stats": writer.stats(0.0, 255.0),
        },
    )
    labels = writer.table(
        FILE,
        bytes_={"type": TENSOR_AXIS_LABELS},
        offsets={
            "name": writer.text(LABELS),
            "description": writer.text("the classes, in the order of the probabilities"),
        },
    )
    feature = writer.table({})
    result = writer.table(
        TENSOR,
        offsets={
            "name": writer.text("probability"),
            "description": writer.text("float32 [1, classes]: the probability of each class"),
            "content": writer.table(CONTENT, bytes_={"type": FEATURE}, offsets={"value": feature}),
            "stats": writer.stats(0.0, 1.0),
            "associated_files": writer.vector([labels]),
        },
    )
    subgraph = writer.table(
        SUBGRAPH,
        offsets={
            "input_tensor_metadata": writer.vector([entry]),
            "output_tensor_metadata": writer.vector([result]),
        },
    )
    model = writer.table(
        MODEL,
        offsets={
            "name": writer.text(f"{spec.recipe} {spec.precision}"),
            "description": writer.text(f"{spec.task}. {spec.notice}"),
            "version": writer.text(spec.split_hash[:12]),
            "subgraph_metadata": writer.vector([subgraph]),
            "author": writer.text("lesiontk"),
            "license": writer.text(spec.licence),
            "min_parser_version": writer.text(PARSER_VERSION),
        },
    )
    return writer.finish(model)


class _Writer:
    """A writer of flatbuffer tables from mappings of fields; inner tables are written first."""

    def __init__(self) -> None:
        self._builder = flatbuffers.Builder(1024)

    def text(self, text: str) -> int:
        return int(self._builder.CreateString(text))

    def floats(self, values: Sequence[float]) -> int:
        self._builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self._builder.PrependFloat32(value)
        return int(self._builder.EndVector())

    def vector(self, offsets: Sequence[int]) -> int:
        self._builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self._builder.PrependUOffsetTRelative(offset)
        return int(self._builder.EndVector())

    def stats(self, low: float, high: float) -> int:
        limits = {"max": self.floats([high]), "min": self.floats([low])}
        return self.table(STATS, offsets=limits)

    def table(
        self,
        fields: Mapping[str, int],
        *,
        bytes_: Mapping[str, int] | None = None,
        numbers: Mapping[str, int] | None = None,
        offsets: Mapping[str, int] | None = None,
    ) -> int:
        """Write a table; `bytes_` are 8-bit fields, `numbers` 32-bit ones, `offsets` the rest."""
        self._builder.StartObject(max(fields.values(), default=-1) + 1)
        for name, offset in (offsets or {}).items():
            self._builder.PrependUOffsetTRelativeSlot(fields[name], offset, 0)
        for name, value in (numbers or {}).items():
            self._builder.PrependUint32Slot(fields[name], value, 0)
        for name, value in (bytes_ or {}).items():
            self._builder.PrependUint8Slot(fields[name], value, 0)
        return int(self._builder.EndObject())

    def finish(self, root: int) -> bytes:
        self._builder.Finish(root, file_identifier=IDENTIFIER)
        return bytes(self._builder.Output())
