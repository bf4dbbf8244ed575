"""Weights and operators of a graph for TensorRT, read from the file itself."""

from __future__ import annotations

from pathlib import Path

from lesiontk.backends.backend import EngineStructure

NOTHING_TO_COMPUTE = {
    "Pad": "only adds zeros; its reader quantizes them first",
    "MaxPool": "only selects values; its reader quantizes them first",
}
INTEGER_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "AveragePool", "GlobalAveragePool")


def inspect_graph(path: Path) -> EngineStructure:
    """Return the bytes of weights and the operators of an ONNX file, by type."""
    import onnx

    from lesiontk.backends.onnx.bias_range import list_saturated
    from lesiontk.backends.onnx.float16 import list_half_tensors
    from lesiontk.backends.onnx.graph import weights_by_type
    from lesiontk.backends.tensorrt.quantize import split_by_type

    model = onnx.load(path)
    integer, floating = split_by_type(model.graph)
    half = len(list_half_tensors(model.graph) & {node.output[0] for node in floating})
    return EngineStructure(
        weights_by_type(model),
        {"int8": len(integer), "float16": half, "float32": len(floating) - half},
        list_saturated(model),
        float_only=sum(explain_float(node.op_type) is not None for node in floating),
    )


def explain_float(kind: str) -> str | None:
    """Return why operators of this kind stay in float, or None if they need not."""
    if kind in NOTHING_TO_COMPUTE:
        return NOTHING_TO_COMPUTE[kind]
    if kind in INTEGER_LAYERS:
        return None
    return "only layers with weights, average pools and additions compute in int8 there"
