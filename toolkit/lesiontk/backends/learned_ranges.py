"""Ranges learned by quantization-aware training, mapped to an engine's float graph.

Training has the ranges of layers, a back end needs those of tensors, with other names and layouts.
They are matched by their values on the same image.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from lesiontk.backends.tensor_matching import Values, is_same
from lesiontk.calibration.ranges import Ranges, TensorRange
from lesiontk.errors import DataError

LEARNED = "learned_ranges.csv"


def write_learned(path: Path, ranges: Ranges, moves: Mapping[str, str]) -> None:
    """Write layer, low, high, moves; `moves` is layer -> the layer whose values it only moves."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("layer", "low", "high", "moves"))
        writer.writerows((name, *ends, "") for name, ends in ranges.items())
        writer.writerows((name, *ranges[origin], origin) for name, origin in moves.items())


def read_learned(path: Path) -> tuple[Ranges, set[str]]:
    """Return every layer's range, and the layers that only move another's values."""
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    ranges = {row["layer"]: (float(row["low"]), float(row["high"])) for row in rows}
    return ranges, {row["layer"] for row in rows if row.get("moves")}


def match_tensors(layers: Values, tensors: Values, moving: Collection[str] = ()) -> dict[str, str]:
    """Return tensor -> the layer with the same values, where there is one.

    Values are those of one image, as in `is_same`. Raises `DataError` for a layer without a tensor
    unless it is `moving`: a graph may have fused it with its reader.
    """
    matched: dict[str, str] = {}
    for layer, expected in layers.items():
        found = [name for name, values in tensors.items() if is_same(expected, values)]
        if not found and layer not in moving:
            raise DataError(
                f"no tensor of the graph has the values of layer {layer!r}, whose range was "
                "learned; the engine was not made from this model."
            )
        alike = [name for name in found if tensors[name].ndim == expected.ndim]
        matched.update(
            dict.fromkeys(alike or found, layer)
        )  # pooling one position changes no value
    return matched


def apply_learned(
    measured: Mapping[str, TensorRange], learned: Ranges, matched: Mapping[str, str]
) -> dict[str, TensorRange]:
    """Return the measured ranges with the learned ones replacing the observer's."""
    return {
        name: replace(r, low=learned[matched[name]][0], high=learned[matched[name]][1])
        if name in matched
        else r
        for name, r in measured.items()
    }
