"""Whether LiteRT runs a graph with XNNPACK, which it applies silently."""

from __future__ import annotations

from typing import Any

import numpy as np

from lesiontk.backends.execution import NOTHING, Execution
from lesiontk.system.native_output import suppress_native_output

XNNPACK = "XNNPACK"


def describe_xnnpack(interpreter: Any) -> Execution:
    """Return whether an interpreter that has allocated its tensors runs delegated nodes.

    Each delegated part of the graph is one node ``DELEGATE``; nodes between several of them run on
    LiteRT's own kernels.
    """
    names = [str(node["op_name"]) for node in interpreter._get_ops_details()]
    parts = names.count("DELEGATE")
    if parts == 0:
        return Execution("delegate", XNNPACK, NOTHING, "LiteRT's own kernels run")
    detail = "" if parts == 1 else f"in {parts} parts, with LiteRT's own kernels between them"
    return Execution("delegate", XNNPACK, XNNPACK, detail)


def try_xnnpack() -> Execution:
    """Return whether XNNPACK runs a graph of one float32 addition on this machine."""
    from ai_edge_litert.interpreter import Interpreter

    with suppress_native_output():
        interpreter = Interpreter(model_content=_build_addition(), num_threads=1)
        interpreter.allocate_tensors()
    return describe_xnnpack(interpreter)


def _build_addition() -> bytes:
    """Return the flatbuffer of ``y = x + x`` on float32 [1, 8]."""
    from ai_edge_litert import schema_py_generated as schema

    from lesiontk.backends.tflite.graph import dump_model

    graph = schema.SubGraphT()
    graph.tensors = []
    for name in ("x", "y"):
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.buffer = name, schema.TensorType.FLOAT32, 0
        tensor.shape = np.array([1, 8], np.int32)
        graph.tensors.append(tensor)
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 0], [1]
    operator.builtinOptionsType = schema.BuiltinOptions.AddOptions
    operator.builtinOptions = schema.AddOptionsT()
    graph.operators, graph.inputs, graph.outputs = [operator], [0], [1]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.ADD
    code.version = 1
    model = schema.ModelT()
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], [code]
    model.buffers = [schema.BufferT()]
    return dump_model(model)
