"""Work and time of each operator of an ONNX file."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np
import onnx

from lesiontk.backends.onnx.constants import constants_of
from lesiontk.backends.operator_profile import OperatorCost, OperatorProfile, OperatorTimes

METHOD = "ONNX Runtime's own profile of each kernel, which slows the whole a little"
NUMBERED = re.compile(r"_token_\d+$")
"""What ONNX Runtime appends to the names of nodes that it fused."""
WARMUP = 5


def count_costs(model: onnx.ModelProto) -> tuple[OperatorCost, ...]:
    """Return the work of each operator of a model with weights; Q/DQ nodes are not operators."""
    shapes = _infer_shapes(model)
    constants = constants_of(model.graph)
    makers = {name: node for node in model.graph.node for name in node.output}
    found = []
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        stored = node.input[1]
        while stored not in constants and stored in makers:  # through DequantizeLinear, Transpose
            stored = makers[stored].input[0]
        if stored not in constants:
            continue
        weights = constants[stored].shape
        output = shapes.get(node.output[0], ())
        if node.op_type == "Conv":
            macs = prod(output) * prod(weights[1:])
        else:
            macs = prod(output[:-1]) * prod(weights)
        values = sum(prod(shapes.get(name, ())) for name in (node.input[0], node.output[0]))
        found.append(OperatorCost(node.name or node.output[0], macs, values))
    return tuple(found)


def _infer_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return tensor -> its shape for one image; an unknown size is 1."""
    one = onnx.ModelProto()
    one.CopyFrom(model)
    for entry in one.graph.input:
        for size in entry.type.tensor_type.shape.dim:
            if not size.HasField("dim_value"):
                size.dim_value = 1
    inferred = onnx.shape_inference.infer_shapes(one, data_prop=True).graph
    return {
        entry.name: tuple(max(1, d.dim_value) for d in entry.type.tensor_type.shape.dim)
        for entry in (*inferred.input, *inferred.value_info, *inferred.output)
    }


def profile_operators(
    path: Path, rounds: int, threads: int, entries: Mapping[str, str]
) -> OperatorProfile:
    """Return the times of each node of a file, as ONNX Runtime runs it, and of the whole."""
    from lesiontk.backends.onnx.backend import make_session, open_session
    from lesiontk.backends.onnx.provider import CPU

    plain = open_session(path, threads, CPU, entries)
    entry = plain.get_inputs()[0]
    shape = [size if isinstance(size, int) else 1 for size in entry.shape]
    feed = {entry.name: np.random.default_rng(0).integers(0, 256, shape, np.uint8)}
    wholes = []
    with tempfile.TemporaryDirectory() as folder:
        profiled = make_session(
            str(path), threads, entries=entries, profile=str(Path(folder) / "profile")
        )
        for turn in range(WARMUP + rounds):
            start = time.perf_counter_ns()
            plain.run(None, feed)
            if turn >= WARMUP:
                wholes.append((time.perf_counter_ns() - start) / 1e6)
            profiled.run(None, feed)
        events = json.loads(Path(profiled.end_profiling()).read_text(encoding="utf-8"))
    return OperatorProfile(METHOD, read_events(events, rounds), tuple(wholes))


def read_events(events: list[dict[str, object]], rounds: int) -> tuple[OperatorTimes, ...]:
    """Return the times of each node in the last `rounds` runs of a profile of ONNX Runtime."""
    samples: dict[str, list[float]] = {}
    kinds: dict[str, str] = {}
    for event in events:
        name = str(event["name"])
        if event.get("cat") != "Node" or not name.endswith("_kernel_time"):
            continue
        node = NUMBERED.sub("", name.removesuffix("_kernel_time"))
        samples.setdefault(node, []).append(float(str(event["dur"])) / 1e3)
        kinds[node] = str(dict(event["args"]).get("op_name", ""))  # type: ignore[call-overload]
    return tuple(
        OperatorTimes(node, kinds[node], tuple(found[-rounds:])) for node, found in samples.items()
    )
