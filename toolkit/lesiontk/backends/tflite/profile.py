"""Work and time of each operator of a TFLite file.

LiteRT's wheel has no profiler with a Python interface, so each operator is timed alone, in a graph
of its own.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from lesiontk.backends.operator_profile import OperatorCost, OperatorProfile, OperatorTimes
from lesiontk.backends.tflite.graph import dump_model, operator_name, read_model
from lesiontk.system.native_output import suppress_native_output

METHOD = (
    "each operator alone in a graph of its own, with XNNPACK, its weights and inputs in the cache"
)
CALLS = 3
"""Timed calls of an operator in a round, after one that fills the cache; their median counts."""


def count_costs(content: bytes) -> tuple[OperatorCost, ...]:
    """Return the work of each operator of a flatbuffer."""
    model = read_model(content)
    graph = model.subgraphs[0]
    found = []
    for operator in graph.operators:
        output = graph.tensors[operator.outputs[0]]
        moved = [graph.tensors[i] for i in operator.outputs]
        moved += [graph.tensors[i] for i in operator.inputs if i >= 0 and _varies(model, graph, i)]
        found.append(
            OperatorCost(
                output.name.decode(),
                _count_macs(operator_name(model, operator), graph, operator),
                sum(_size(tensor) for tensor in moved),
            )
        )
    return tuple(found)


def _count_macs(kind: str, graph: Any, operator: Any) -> int:
    if kind not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        return 0
    weights = [int(size) for size in graph.tensors[operator.inputs[1]].shape]
    output = _size(graph.tensors[operator.outputs[0]])
    # Convolutions have [O, H, W, I], depthwise ones [1, H, W, O], dense layers [O, I].
    per_value = weights[1:3] if kind == "DEPTHWISE_CONV_2D" else weights[1:]
    return output * prod(per_value)


def _size(tensor: Any) -> int:
    return prod(max(1, int(size)) for size in tensor.shape) if tensor.shape is not None else 1


def _varies(model: Any, graph: Any, index: int) -> bool:
    data = model.buffers[graph.tensors[index].buffer].data
    return data is None or len(data) == 0


def isolate_operator(model: Any, operator: Any) -> bytes:
    """Return a flatbuffer with one operator of a model's first graph, and its constants."""
    graph = model.subgraphs[0]
    used = list(dict.fromkeys(int(i) for i in (*operator.inputs, *operator.outputs) if i >= 0))
    places = {index: place for place, index in enumerate(used)}
    part, alone = schema.ModelT(), schema.SubGraphT()
    part.version, part.operatorCodes = model.version, model.operatorCodes
    part.buffers, part.subgraphs = [schema.BufferT()], [alone]
    alone.tensors = []
    for index in used:
        tensor = copy.copy(graph.tensors[index])
        tensor.buffer = 0
        if not _varies(model, graph, index):
            part.buffers.append(model.buffers[graph.tensors[index].buffer])
            tensor.buffer = len(part.buffers) - 1
        alone.tensors.append(tensor)
    own = copy.copy(operator)
    own.inputs = [places.get(int(index), -1) for index in operator.inputs]
    own.outputs = [places[int(index)] for index in operator.outputs]
    alone.operators = [own]
    alone.inputs = [
        places[int(i)] for i in operator.inputs if i >= 0 and _varies(model, graph, int(i))
    ]
    alone.outputs = list(own.outputs)
    return dump_model(part)


def fold_halves(model: Any) -> None:
    """Replace each constant in float16, and the operator that widens it once, by its values.

    The interpreter does the same while it loads a file.
    """
    graph, kept = model.subgraphs[0], []
    for operator in graph.operators:
        given = graph.tensors[operator.inputs[0]]
        constant = not _varies(model, graph, operator.inputs[0])
        if not constant or given.type != schema.TensorType.FLOAT16:
            kept.append(operator)
            continue
        halves = np.asarray(model.buffers[given.buffer].data, np.uint8).view(np.float16)
        buffer = schema.BufferT()
        buffer.data = halves.astype(np.float32).view(np.uint8)
        model.buffers.append(buffer)
        graph.tensors[operator.outputs[0]].buffer = len(model.buffers) - 1
    graph.operators = kept


def profile_operators(path: Path, rounds: int, threads: int) -> OperatorProfile:
    """Return the times of each operator of a file, and of the whole."""
    from lesiontk.backends.tflite.backend import open_interpreter

    open_interpreter(path, threads)  # it checks the file
    content = path.read_bytes()
    model = read_model(content)
    fold_halves(model)
    graph = model.subgraphs[0]
    operators = [
        (graph.tensors[operator.outputs[0]].name.decode(), operator_name(model, operator),
         _prepare(isolate_operator(model, operator), threads))
        for operator in graph.operators
    ]  # fmt: skip
    whole = _prepare(content, threads)
    samples: list[list[float]] = [[] for _ in operators]
    wholes = []
    for _ in range(rounds):
        wholes.append(_time(whole))
        for found, (_, _, invoke) in zip(samples, operators, strict=True):
            found.append(_time(invoke))
    return OperatorProfile(
        METHOD,
        tuple(
            OperatorTimes(name, kind, tuple(found))
            for found, (name, kind, _) in zip(samples, operators, strict=True)
        ),
        tuple(wholes),
    )


def _prepare(content: bytes, threads: int) -> Callable[[], None]:
    """Return the call that runs a flatbuffer, with random inputs."""
    from ai_edge_litert.interpreter import Interpreter

    with suppress_native_output():
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
    generator = np.random.default_rng(0)
    for entry in interpreter.get_input_details():
        values = generator.uniform(0, 100, entry["shape"]).astype(entry["dtype"])
        interpreter.set_tensor(entry["index"], values)

    def invoke(kept: bytes = content) -> None:  # the interpreter reads its weights from there
        interpreter.invoke()

    return invoke


def _time(invoke: Callable[[], None]) -> float:
    """Return the median ms of some calls, after one that is not timed."""
    invoke()
    samples = []
    for _ in range(CALLS):
        start = time.perf_counter_ns()
        invoke()
        samples.append((time.perf_counter_ns() - start) / 1e6)
    return float(np.median(samples))
