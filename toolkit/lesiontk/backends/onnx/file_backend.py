"""The base of back ends with ``.onnx`` files: description, record, tensors."""

from __future__ import annotations

from pathlib import Path

from lesiontk.backends.backend import Backend, EngineStructure, parse_spec
from lesiontk.backends.file_records import add_to_onnx, split_onnx
from lesiontk.backends.operator_profile import OperatorCost
from lesiontk.backends.quantized_tensors import QuantizedTensor
from lesiontk.records import EngineSpec

QUANTIZED = ("Conv", "Gemm", "MatMul", "Add", "MaxPool", "GlobalAveragePool", "Transpose", "Relu",
             "Clip", "Squeeze", "Reshape", "Concat", "AveragePool", "Mul", "Pad")  # fmt: skip
FOLLOWING = ("MaxPool", "AveragePool", "Transpose", "Squeeze", "Reshape", "Relu", "Clip", "Pad")
"""Operators that get the scale of their input, or none, from ONNX Runtime's quantizer."""
FLOAT_PRECISIONS = ("float32", "float16")


class ONNXFileBackend(Backend):
    """A back end whose engine is an ONNX file with the description in its metadata."""

    def read_spec(self, path: Path) -> EngineSpec:
        from lesiontk.backends.onnx.file import read_description

        return parse_spec(read_description(path), path)

    def read_backend_name(self, path: Path) -> str | None:
        from lesiontk.backends.onnx.file import read_backend_name

        return read_backend_name(path)

    def add_record(self, content: bytes, text: str) -> bytes:
        return add_to_onnx(content, text)

    def split_record(self, content: bytes) -> tuple[bytes, str | None]:
        return split_onnx(content)

    def add_signal_outputs(self, content: bytes) -> bytes:
        import onnx

        from lesiontk.backends.onnx.signals import add_signal_outputs

        model = onnx.load_model_from_string(content)
        add_signal_outputs(model)
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())

    def count_costs(self, path: Path) -> tuple[OperatorCost, ...]:
        import onnx

        from lesiontk.backends.onnx.profile import count_costs

        return count_costs(onnx.load(path))

    def list_quantized_tensors(self, path: Path) -> tuple[QuantizedTensor, ...]:
        import onnx

        from lesiontk.backends.onnx.graph import quantized_activations

        return quantized_activations(onnx.load(path))

    def inspect(self, path: Path) -> EngineStructure:
        import onnx

        from lesiontk.backends.onnx.bias_range import list_saturated
        from lesiontk.backends.onnx.graph import quantized_operators, weights_by_type

        model = onnx.load(path)
        quantized, floating = quantized_operators(model)
        operators = {"int8": len(quantized), "float32": len(floating)}
        return EngineStructure(weights_by_type(model), operators, list_saturated(model))

    def list_float_operators(self, path: Path, precision: str) -> tuple[str, ...]:
        import onnx

        from lesiontk.backends.onnx.graph import quantized_operators

        if precision in FLOAT_PRECISIONS:
            return ()
        left = quantized_operators(onnx.load(path))[1]
        return tuple(f"{node.op_type} {node.name}" for node in left)

    def _explain_float(self, kind: str, precision: str) -> str | None:
        if kind in FOLLOWING:
            return "has no scale of its own, and its input is in float"
        return None if kind in QUANTIZED else "not among the operators that are quantized here"
