"""Back end ``onnx`` (ONNX Runtime): float32 from the float TFLite file, int8 as a Q/DQ graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends.backend import (
    SPEC_KEY,
    Backend,
    BackendInfo,
    ConversionRecord,
    Engine,
    EngineStructure,
    PrecisionInfo,
    QuantizationPlan,
    dump_spec,
    parse_spec,
)
from lesiontk.calibration.ranges import collect_ranges
from lesiontk.errors import DataError, EnvironmentLacksError
from lesiontk.records import EngineSpec

QUANTIZED = ("Conv", "Gemm", "MatMul", "Add", "MaxPool", "GlobalAveragePool", "Transpose", "Relu",
             "Clip", "Squeeze", "Reshape", "Concat", "AveragePool", "Mul", "Pad")  # fmt: skip


class ONNXEngine(Engine):
    """Runs an ``.onnx`` file, one image at a time, on ONNX Runtime's CPU provider."""

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        provider = "CPUExecutionProvider"
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
        except Exception as error:  # its exceptions share no public base class
            raise DataError(f"{path.name} is no model ONNX Runtime can load: {error}") from error
        if session.get_providers() != [provider]:
            raise EnvironmentLacksError(
                f"ONNX Runtime fell back to {session.get_providers()}; expected {provider}."
            )
        super().__init__(
            parse_spec(session.get_modelmeta().custom_metadata_map.get(SPEC_KEY), path)
        )
        self._session = session
        self._input = session.get_inputs()[0].name

    def _infer(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        return np.concatenate(
            [
                self._session.run(None, {self._input: images[row : row + 1]})[0]
                for row in range(len(images))
            ]
        )

    def close(self) -> None:
        self._session = None


class ONNXBackend(Backend):
    """ONNX Runtime on the CPU."""

    info: ClassVar[BackendInfo] = BackendInfo(
        name="onnx",
        precisions={
            "float32": PrecisionInfo(derived_from="tflite:float32"),
            "int8": PrecisionInfo(derived_from="onnx:float32", calibrated=True),
        },
        suffix=".onnx",
        tools=("onnx", "onnxruntime", "tf2onnx"),
    )

    def _convert(
        self,
        source: Path,
        precision: str,
        spec: EngineSpec,
        quantization: QuantizationPlan | None,
        out: Path,
    ) -> ConversionRecord:
        import onnx

        from lesiontk.backends.onnx_graph import embed_spec, quantized_operators

        left: tuple[str, ...] = ()
        if quantization is None:
            model = convert_tflite(source)
        else:
            model = quantize_static(onnx.load(source), quantization)
            left = tuple(f"{node.op_type} {node.name}" for node in quantized_operators(model)[1])
        embed_spec(model, dump_spec(spec))
        onnx.checker.check_model(model, full_check=True)
        name = f"onnx_{precision}.onnx"
        onnx.save(model, out / name)
        return ConversionRecord(name, left)

    def open(self, path: Path, *, threads: int = 1) -> Engine:
        return ONNXEngine(path, threads)

    def inspect(self, path: Path) -> EngineStructure:
        import onnx

        from lesiontk.backends.onnx_graph import quantized_operators, weights_by_type

        model = onnx.load(path)
        quantized, floating = quantized_operators(model)
        return EngineStructure(
            weights_by_type(model), {"int8": len(quantized), "float32": len(floating)}
        )


def convert_tflite(path: Path) -> Any:
    """Return the ONNX model of a float32 flatbuffer; input uint8 NHWC ``image``."""
    from lesiontk.backends.onnx_from_tflite import onnx_from_tflite
    from lesiontk.backends.onnx_graph import name_canonically, rename_border

    model = onnx_from_tflite(path)
    rename_border(model)
    name_canonically(model)
    return model


def quantize_static(model: Any, plan: QuantizationPlan) -> Any:
    """Return the Q/DQ int8 model derived from a float32 one.

    Activations are uint8 and weights int8, the pair that ONNX Runtime's x86 and ARM kernels take
    directly; the input's own bytes are the first quantized tensor.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    from lesiontk.backends.onnx_graph import INPUT, expose_tensors, set_byte_input
    from lesiontk.backends.onnx_graph import strip_normalisation as strip

    session, names = _open_exposed(*expose_tensors(model))

    def run(image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        return dict(zip(names, session.run(names, {INPUT: image}), strict=True))

    ranges = collect_ranges(run, (image[np.newaxis] for image in plan.images), plan.observer)
    stripped = strip(model)
    ranges[stripped.tensor] = stripped.quantization.range()
    data = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in ranges.items()
    }
    keep = {name.lower() for name in plan.keep_float}
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, data),
        nodes_to_quantize=[],
        nodes_to_exclude=[],
        op_types_to_quantize=[name for name in QUANTIZED if name.lower() not in keep],
        extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantized = quantizer.model.model
    set_byte_input(quantized, stripped)
    return quantized


def _open_exposed(model: Any, names: list[str]) -> tuple[Any, list[str]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Optimisations would fuse away tensors whose range is asked for.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]), names
