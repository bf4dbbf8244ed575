"""The operators of an engine: their work, their time, and the layer of the model they come from."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lesiontk.document import Record

COMPUTING = re.compile(r"Conv2D|MatMul|depthwise")
"""The beginning of TensorFlow's names of operators with weights."""


@dataclass(frozen=True, slots=True)
class OperatorCost(Record):
    """Multiply-accumulate operations of an operator for one image, and the values that it reads
    and writes, weights excepted."""

    name: str
    macs: int
    values: int


@dataclass(frozen=True, slots=True)
class OperatorTimes(Record):
    """The ms of an operator in each round; `kind` is its name in the runtime."""

    name: str
    kind: str
    samples_ms: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class OperatorProfile(Record):
    """The times of an engine's operators, and of the whole engine in the same rounds.

    `method` is a sentence on how they were measured, without its full stop.
    """

    method: str
    operators: tuple[OperatorTimes, ...]
    whole_ms: tuple[float, ...]


def keras_layer_of(operator: str) -> str:
    """Return the layer of the Keras model that an operator comes from, by its name.

    Converters join the names of what they fuse; the part with weights counts. A name without
    layers, of an operator that a converter or runtime inserted, is returned without its number.

    >>> keras_layer_of("model/block1_relu/Relu;model/block1_bn/FusedBatchNormV3;"
    ...                "model/block1_conv/Conv2D1")
    'block1_conv'
    >>> keras_layer_of("Transpose_37")
    'Transpose'
    """
    parts = [part.split("/") for part in re.split(r";| \+ ", operator)]
    for words in parts:
        for place in range(len(words) - 1, 0, -1):
            if COMPUTING.match(words[place]):
                return words[place - 1]
    words = parts[0]
    return words[-2] if len(words) > 1 else re.sub(r"_\d+$", "", words[0])
