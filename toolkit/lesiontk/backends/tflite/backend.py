"""Back end ``tflite`` (LiteRT): converted from Keras once, all else derived from that file."""

from __future__ import annotations

import logging
import struct
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends.backend import (
    Backend,
    BackendInfo,
    ConversionRecord,
    Engine,
    EngineStructure,
    PrecisionInfo,
    Quantization,
    QuantizationPlan,
    dump_spec,
    parse_spec,
)
from lesiontk.backends.execution import Execution
from lesiontk.backends.file_records import add_to_archive, split_archive
from lesiontk.backends.foreign import ForeignDescription
from lesiontk.backends.operator_profile import OperatorCost, OperatorProfile
from lesiontk.backends.quantized_tensors import QuantizedTensor
from lesiontk.calibration.ranges import TensorReader
from lesiontk.errors import DataError
from lesiontk.records import EngineSpec
from lesiontk.system.native_output import suppress_native_output

TURNED_TO_FLOAT = (
    "int8 in the file and converted to float32 at load time, because LiteRT's kernel with dynamic "
    "quantization is slower than the float32 one"
)

logger = logging.getLogger(__name__)


class TFLiteEngine(Engine):
    """An engine that runs a ``.tflite`` file, one image at a time, with XNNPACK."""

    def __init__(self, path: Path, threads: int) -> None:
        from lesiontk.backends.tflite.graph import extract_spec

        interpreter = open_interpreter(
            path, threads
        )  # first, because it checks the whole structure
        content = path.read_bytes()
        super().__init__(parse_spec(extract_spec(content), path))
        _check_labels(content, self.spec, path)
        self._interpreter = interpreter
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [part["index"] for part in self._interpreter.get_output_details()]

    def _infer(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        return self._run(images, self._outputs[:1])[0]

    def _infer_outputs(self, images: NDArray[np.uint8]) -> list[NDArray[Any]]:
        return self._run(images, self._outputs)

    def _run(self, images: NDArray[np.uint8], outputs: list[int]) -> list[NDArray[Any]]:
        """Return these tensors, each [N, …], of one inference for each image."""
        found: list[list[NDArray[Any]]] = [[] for _ in outputs]
        for row in range(len(images)):
            self._interpreter.set_tensor(self._input, images[row : row + 1])
            self._interpreter.invoke()
            for values, output in zip(found, outputs, strict=True):
                values.append(self._interpreter.get_tensor(output)[0])
        return [np.stack(values) for values in found]

    def describe_execution(self) -> tuple[Execution, ...]:
        from lesiontk.backends.tflite.delegate import describe_xnnpack

        return (describe_xnnpack(self._interpreter),)

    def close(self) -> None:
        self._interpreter = None


def read_flatbuffer(path: Path) -> bytes:
    """Return a TFLite file's content. Raises `DataError` without its identifier."""
    content = path.read_bytes()
    if content[4:8] != b"TFL3":
        raise DataError(f"{path.name} is not a TFLite flatbuffer (it lacks the identifier TFL3).")
    return content


def open_interpreter(path: Path, threads: int) -> Any:
    """Return LiteRT's interpreter of a file. Raises `DataError` if it cannot load it."""
    from ai_edge_litert.interpreter import Interpreter

    from lesiontk.backends.tflite.graph import check_no_loop
    from lesiontk.backends.tflite.tensor_sizes import check_tensor_sizes

    content = read_flatbuffer(path)
    try:
        with suppress_native_output():
            interpreter = Interpreter(model_content=content, num_threads=threads)
            check_no_loop(content, path)  # the interpreter has checked the structure
            check_tensor_sizes(content, path)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise DataError(f"{path.name} is not a model that LiteRT can load: {error}") from error
    return interpreter


class TFLiteBackend(Backend):
    """LiteRT's interpreter; ai-edge-quantizer for reduced precisions."""

    info: ClassVar[BackendInfo] = BackendInfo(
        name="tflite",
        title="TFLite",
        precisions={
            "float32": PrecisionInfo(derived_from="model"),
            "float16": PrecisionInfo(derived_from="tflite:float32"),
            "dynamic_int8": PrecisionInfo(derived_from="tflite:float32"),
            "int8": PrecisionInfo(derived_from="tflite:float32", calibrated=True),
            "int16x8": PrecisionInfo(derived_from="tflite:float32", calibrated=True),
            "mixed": PrecisionInfo(derived_from="tflite:float32", calibrated=True, mixed="float32"),
        },
        suffix=".tflite",
        tools=("ai-edge-litert", "ai-edge-quantizer", "flatbuffers", "tensorflow", "tf_keras"),
        runtime=("ai-edge-litert",),
        exposes_activations=True,
        returns_features=True,
        profiles=True,
    )

    def _convert(
        self,
        source: Path,
        precision: str,
        spec: EngineSpec,
        quantization: QuantizationPlan | None,
        out: Path,
    ) -> ConversionRecord:
        from lesiontk.backends.tflite.conversion import convert_keras
        from lesiontk.backends.tflite.graph import embed_spec
        from lesiontk.backends.tflite.metadata import embed_metadata

        made = Quantization()
        if precision == "float32":
            content = convert_keras(source)
        else:
            content, made = derive(source.read_bytes(), precision, quantization)
        name = f"tflite_{precision}.tflite"
        (out / name).write_bytes(embed_metadata(embed_spec(content, dump_spec(spec)), spec))
        return ConversionRecord(name, quantization=made)

    def read_spec(self, path: Path) -> EngineSpec:
        from lesiontk.backends.tflite.graph import extract_spec

        content = read_flatbuffer(path)
        try:
            text = extract_spec(content)
        except (struct.error, TypeError, ValueError, IndexError) as error:
            raise DataError(f"{path.name} is not an intact TFLite file ({error}).") from error
        return parse_spec(text, path)

    def add_record(self, content: bytes, text: str) -> bytes:
        return add_to_archive(content, text)

    def split_record(self, content: bytes) -> tuple[bytes, str | None]:
        return split_archive(content)

    def add_signal_outputs(self, content: bytes) -> bytes:
        from lesiontk.backends.tflite.graph import extract_spec
        from lesiontk.backends.tflite.metadata import embed_metadata
        from lesiontk.backends.tflite.signals import add_signal_outputs

        spec = parse_spec(extract_spec(content), Path("the engine"))
        return embed_metadata(add_signal_outputs(content), spec)

    def open(self, path: Path, *, threads: int = 1) -> Engine:
        return TFLiteEngine(path, threads)

    def carries_description(self, path: Path) -> bool:
        from lesiontk.backends.tflite.graph import extract_spec

        content = path.read_bytes()
        return (
            content[4:8] != b"TFL3" or extract_spec(content) is not None
        )  # damaged: opening it raises

    def open_foreign(self, path: Path, description: ForeignDescription, threads: int) -> Engine:
        from lesiontk.backends.tflite.foreign import ForeignTFLiteEngine

        return ForeignTFLiteEngine(path, description, threads)

    def inspect(self, path: Path) -> EngineStructure:
        from lesiontk.backends.tflite.bias_range import list_saturated
        from lesiontk.backends.tflite.graph import TYPE_NAMES, operator_name, read_model

        content = path.read_bytes()
        model = read_model(content)
        weights: Counter[str] = Counter()
        operators: Counter[str] = Counter()
        for graph in model.subgraphs:
            for tensor in graph.tensors:
                data = model.buffers[tensor.buffer].data
                if data is not None:
                    weights[TYPE_NAMES[tensor.type]] += len(data)
            for operator in graph.operators:
                if operator_name(model, operator) not in ("QUANTIZE", "DEQUANTIZE"):
                    kind = TYPE_NAMES[graph.tensors[operator.outputs[0]].type]
                    operators[kind] += 1
        return EngineStructure(dict(weights), dict(operators), list_saturated(content))

    def list_float_operators(self, path: Path, precision: str) -> tuple[str, ...]:
        from lesiontk.backends.tflite.quantization import list_float_operators

        return () if precision == "float32" else list_float_operators(path.read_bytes(), precision)

    def _explain_float(self, kind: str, precision: str) -> str | None:
        from lesiontk.backends.tflite.quantization import INTEGER_KINDS

        if precision == "dynamic_int8":
            return TURNED_TO_FLOAT if kind == "DEPTHWISE_CONV_2D" else None
        return None if kind in INTEGER_KINDS else "ai-edge-quantizer has no integer form of it"

    def read_tensors(self, path: Path) -> TensorReader:
        from lesiontk.backends.tflite.tensors import tensor_reader

        return tensor_reader(path.read_bytes())

    def list_layers(self, path: Path) -> tuple[str, ...]:
        from lesiontk.backends.tflite.graph import group_layers, strip_normalization

        return tuple(group_layers(strip_normalization(path.read_bytes())[0]))

    def count_costs(self, path: Path) -> tuple[OperatorCost, ...]:
        from lesiontk.backends.tflite.profile import count_costs

        return count_costs(read_flatbuffer(path))

    def profile(self, path: Path, *, rounds: int, threads: int = 1) -> OperatorProfile:
        from lesiontk.backends.tflite.profile import profile_operators

        return profile_operators(path, rounds, threads)

    def list_quantized_tensors(self, path: Path) -> tuple[QuantizedTensor, ...]:
        from lesiontk.backends.tflite.graph import quantized_activations

        return quantized_activations(path.read_bytes())

    def examine_runtime(self) -> tuple[Execution, ...]:
        from lesiontk.backends.tflite.delegate import try_xnnpack

        return (try_xnnpack(),)


def _check_labels(content: bytes, spec: EngineSpec, path: Path) -> None:
    """Raise `DataError` unless mobile tools read the same labels from the file."""
    from lesiontk.backends.tflite.metadata import read_labels

    try:
        labels = read_labels(content)
    except DataError as error:
        raise DataError(f"{path.name} is damaged: {error}") from error
    if labels is not None and labels != spec.labels:
        raise DataError(
            f"{path.name} has the labels {', '.join(labels)} for mobile tools and "
            f"{', '.join(spec.labels)} for lesiontk; convert the model again."
        )


def derive(
    content: bytes, precision: str, plan: QuantizationPlan | None
) -> tuple[bytes, Quantization]:
    """Return the flatbuffer of a reduced precision, derived from the float32 one."""
    from lesiontk.backends.tflite.quantization import (
        ACTIVATION_BITS,
        halve_weights,
        quantize_dynamic,
        quantize_static,
    )

    if precision == "float16":
        return halve_weights(content), Quantization()
    if plan is None:
        return quantize_dynamic(content), Quantization(weight_bits=8)
    bits = ACTIVATION_BITS[precision]
    quantized, corrected = quantize_static(content, plan, bits)
    return quantized, Quantization(
        weight_bits=8,
        activation_bits=bits,
        corrected_biases=corrected,
        float_layers=len(plan.float_layers) if precision == "mixed" else None,
    )
