"""Observation of every tensor of a graph, independent of the framework."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.calibration.observers import OBSERVERS, Observer
from lesiontk.document import Record
from lesiontk.errors import DataError

Ranges = dict[str, tuple[float, float]]
TensorReader = Callable[[NDArray[np.uint8]], Mapping[str, NDArray[Any]]]
"""Returns the float value of every tensor of a graph for one image, uint8 [1, S, S, 3]."""


@dataclass(frozen=True, slots=True)
class TensorRange:
    """The observed minimum and maximum, and the range of the observer."""

    minimum: float
    maximum: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class MeasuredRanges(Record):
    """The ranges of the engine `source`: the numbers of measured `tensors` and of `images`.

    `carried` tensors have the range of another graph, `learned` ones that of quantization-aware
    training.
    """

    learned: int
    source: str
    observer: str
    images: int
    tensors: int
    carried: int


def measure_ranges(
    read: TensorReader, images: Iterable[NDArray[np.uint8]], observer: str
) -> dict[str, TensorRange]:
    """Return tensor name -> its range over `images`, each uint8 [1, S, S, 3].

    There are no default images: ranges on synthetic data are meaningless. Raises `DataError` for no
    image, or a value that is not finite.
    """
    make = OBSERVERS.get(observer)
    observers: dict[str, Observer] = {}
    for image in images:
        for name, values in read(image).items():
            if name not in observers:
                observers[name] = make()
            observers[name].observe(values)
    if not observers:
        raise DataError("int8 needs calibration images; got none.")
    return {n: TensorRange(o.minimum, o.maximum, *o.range()) for n, o in observers.items()}


def collect_ranges(run: TensorReader, images: Iterable[NDArray[np.uint8]], observer: str) -> Ranges:
    """Return tensor name -> (low, high) over `images`; see `measure_ranges`."""
    return {name: (r.low, r.high) for name, r in measure_ranges(run, images, observer).items()}


def write_ranges(path: Path, ranges: Mapping[str, TensorRange]) -> None:
    """Write the ranges as CSV, in the order of the graph, without loss of precision."""
    with path.open("w", newline="") as stream:
        names = ["tensor", *(field.name for field in fields(TensorRange))]
        writer = csv.DictWriter(stream, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({"tensor": name, **asdict(r)} for name, r in ranges.items())


def read_ranges(path: Path) -> dict[str, TensorRange]:
    """Return what `write_ranges` wrote."""
    with path.open(newline="") as stream:
        return {
            row.pop("tensor"): TensorRange(**{name: float(v) for name, v in row.items()})
            for row in csv.DictReader(stream)
        }
