"""Restore saturated biases in a published TFLite engine.

    python benchmarks/repair_biases.py RECIPE

ai-edge-quantizer's weight scales depended only on the weights, so channels that training had
switched off lost their bias (`lesiontk.calibration.bias_range`). Their weights are near zero, and
the original biases are in ``tensorrt_int8.onnx`` beside the engine, in float32. Each saturated bias
gets the value of the same layer there, its channel's weight scale is raised, and its weights are
quantized again. Nothing else changes, including the description in the file.

The compressed TFLite engine of efficientnet_lite0_7class is another network than the ONNX files
beside it, and its float parent is lost. The values are the whole network's all the same: a channel
that is off has no gradient, and two such channels whose bias the quantizer did not cut off
(blocks_0__bn1 28 and blocks_2__bn0 42) have the whole network's bias to seven digits. The values
of the one positive bias, blocks_3__bn1 61, are 0.15609 in the network of seven classes and 0.15610
in that of two, which was trained on its own.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np
import onnx
from model_card import INT8
from numpy.typing import NDArray
from onnx import numpy_helper

from lesiontk.backends import open_engine
from lesiontk.backends.tflite.bias_range import (
    leave_room_for_biases,
    list_saturated,
    read_biases,
)
from lesiontk.backends.tflite.metadata import embed_metadata

ENGINES = Path(__file__).parent / "engines"


@click.command()
@click.argument("recipe")
def repair(recipe: str) -> None:
    """Repair engines/RECIPE/tflite_int8.tflite in place."""
    path = ENGINES / recipe / INT8
    content = path.read_bytes()
    biases = read_biases(content)
    known = read_float_biases(ENGINES / recipe / "tensorrt_int8.onnx")
    if len(known) != len(biases):
        raise click.ClickException(
            f"{path.name} has {len(biases)} layers with a bias and its neighbour {len(known)}."
        )
    places = dict(zip(biases, known, strict=True))
    for name, channels in list_saturated(content).items():
        if len(places[name]) != len(biases[name]):
            raise click.ClickException(f"{name} has another width than its neighbour's layer.")
        for channel in channels:
            before, after = float(biases[name][channel]), float(places[name][channel])
            if before * after <= 0 or abs(after) < abs(before):
                raise click.ClickException(f"{name} {channel}: {after:.5g} was not cut off.")
            biases[name][channel] = after
            click.echo(f"{name.partition(';')[0]} channel {channel}: {before:.5g} -> {after:.5g}")
    repaired = leave_room_for_biases(content, biases)
    with open_engine(path) as engine:
        spec = engine.spec
    path.write_bytes(embed_metadata(repaired, spec))
    with open_engine(path) as engine:
        if json.dumps(asdict(engine.spec)) != json.dumps(asdict(spec)):
            raise click.ClickException("the description has changed.")


def read_float_biases(path: Path) -> list[NDArray[np.float32]]:
    """Return the float biases of a graph's convolutions and dense layers, in its order."""
    graph = onnx.load(path).graph
    constants = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    return [
        constants[node.input[2]]
        for node in graph.node
        if node.op_type in ("Conv", "Gemm") and len(node.input) > 2
    ]


if __name__ == "__main__":
    repair()
