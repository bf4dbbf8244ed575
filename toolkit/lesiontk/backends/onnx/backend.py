"""Back end ``onnx`` (ONNX Runtime): float32 from the float TFLite file, int8 as a Q/DQ graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends.backend import (
    SPEC_KEY,
    BackendInfo,
    ConversionRecord,
    Engine,
    PrecisionInfo,
    Quantization,
    QuantizationPlan,
    dump_spec,
    parse_spec,
)
from lesiontk.backends.execution import Execution
from lesiontk.backends.foreign import ForeignDescription
from lesiontk.backends.onnx.file_backend import QUANTIZED, ONNXFileBackend
from lesiontk.backends.onnx.int8_kernels import EXACT, exact_entries
from lesiontk.backends.onnx.provider import CPU, describe_provider, is_listed, try_providers
from lesiontk.backends.operator_groups import members_of
from lesiontk.backends.operator_profile import OperatorProfile
from lesiontk.calibration.ranges import TensorReader
from lesiontk.errors import DataError
from lesiontk.records import EngineSpec
from lesiontk.system.frameworks import import_onnxruntime

LIMIT, REDUCED_LIMIT = 127, 64
"""The largest stored weight of ONNX Runtime, in 8 bits and in reduced range."""

WEIGHT_BITS = "lesiontk_weight_bits"
"""Metadata key: the weights have 7 bits, with which the fast kernels do not overflow."""


class ONNXEngine(Engine):
    """An engine that runs an ``.onnx`` file, one image at a time, on ONNX Runtime.

    If `provider` fails to load, ONNX Runtime uses the CPU, which `describe_execution` reports.
    `entries` are further session options.
    """

    def __init__(
        self,
        path: Path,
        threads: int,
        provider: str = CPU,
        entries: Mapping[str, str] | None = None,
    ) -> None:
        entries = {**exact_entries(import_onnxruntime()), **(entries or {})}
        session = open_session(path, threads, provider, entries)
        metadata = read_session_metadata(session, path)
        if metadata.get(WEIGHT_BITS) == "7" and entries[EXACT] == "1":
            entries[EXACT] = "0"
            session = open_session(path, threads, provider, entries)
        super().__init__(parse_spec(metadata.get(SPEC_KEY), path))
        self.entries = entries
        """The session options beyond the defaults."""
        self._session = session
        self._reopen = partial(make_session, threads=threads, provider=provider, entries=entries)
        self._path = path
        self._execution = describe_provider(session, provider)
        self._input = session.get_inputs()[0].name

    def _infer(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        return self._infer_outputs(images)[0]

    def _infer_outputs(self, images: NDArray[np.uint8]) -> list[NDArray[Any]]:
        rows = (
            self._session.run(None, {self._input: images[row : row + 1]})
            for row in range(len(images))
        )
        return [np.concatenate(values) for values in zip(*rows, strict=True)]

    def expose_features(self) -> int:
        from lesiontk.backends.onnx.encoder import expose_features

        model, width = expose_features(self._path)
        if model is not None:
            self._session = self._reopen(model.SerializeToString())
        return width

    def _infer_features(self, images: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
        probabilities, features = self._infer_outputs(images)
        return probabilities, features

    def describe_execution(self) -> tuple[Execution, ...]:
        return (self._execution,)

    def close(self) -> None:
        self._session = None


def open_session(path: Path, threads: int, provider: str, entries: Mapping[str, str]) -> Any:
    """Return ONNX Runtime's session. Raises `DataError` for a file that it cannot load.

    Files with external data and graphs with loops are refused, too.
    """
    from lesiontk.backends.onnx.graph import check_closed

    check_closed(path)
    try:
        return make_session(str(path), threads, provider, entries)
    except Exception as error:  # its exceptions share no public base class
        raise DataError(
            f"{path.name} is not a model that ONNX Runtime can load: {error}"
        ) from error


def make_session(
    model: str | bytes,
    threads: int,
    provider: str = CPU,
    entries: Mapping[str, str] | None = None,
    profile: str = "",
) -> Any:
    """Return ONNX Runtime's session of a file or of a model's bytes; its errors are raised.

    With `profile`, the beginning of a path, it profiles its kernels.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    for key, value in (entries or {}).items():
        options.add_session_config_entry(key, value)
    providers = [name for name in dict.fromkeys((provider, CPU)) if is_listed(name)]
    # On the CPU a fallback would be the same, and would be printed to standard output.
    fallback = {} if len(providers) > 1 else {"enable_fallback": 0}
    return onnxruntime.InferenceSession(model, options, providers=providers, **fallback)


def read_session_metadata(session: Any, path: Path) -> dict[str, str]:
    """Return a session's metadata. Raises `DataError` if it is not text."""
    try:
        return dict(session.get_modelmeta().custom_metadata_map)
    except ValueError as error:
        raise DataError(f"{path.name} has metadata that is not valid UTF-8: {error}") from error


class ONNXBackend(ONNXFileBackend):
    """ONNX Runtime on the CPU."""

    info: ClassVar[BackendInfo] = BackendInfo(
        name="onnx",
        title="ONNX",
        precisions={
            "float32": PrecisionInfo(derived_from="tflite:float32"),
            "float16": PrecisionInfo(derived_from="onnx:float32"),
            "int8": PrecisionInfo(derived_from="onnx:float32", calibrated=True, saturates=True),
            "mixed": PrecisionInfo(
                derived_from="onnx:float32", calibrated=True, saturates=True, mixed="float32"
            ),
        },
        suffix=".onnx",
        tools=("onnx", "onnxruntime", "tf2onnx"),
        runtime=("onnx", "onnxruntime"),
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
        import onnx

        from lesiontk.backends.onnx.graph import check_no_float_weights, embed_spec

        made = Quantization()
        if precision == "float32":
            model = convert_tflite(source)
        elif quantization is None:
            model = halve(onnx.load(source))
        else:
            model, made = quantize_static(onnx.load(source), quantization)
            check_no_float_weights(model, but=quantization.float_layers)
            if precision == "mixed":
                made = replace(made, float_layers=len(quantization.float_layers))
        embed_spec(model, dump_spec(spec))
        if made.weight_bits == 7:
            model.metadata_props.add(key=WEIGHT_BITS, value="7")
        onnx.checker.check_model(model, full_check=True)
        name = f"onnx_{precision}.onnx"
        onnx.save(model, out / name)
        return ConversionRecord(name, quantization=made)

    def open(self, path: Path, *, threads: int = 1) -> Engine:
        return ONNXEngine(path, threads)

    def open_on(self, provider: str, path: Path, *, threads: int = 1) -> Engine:
        return ONNXEngine(path, threads, provider)

    def profile(self, path: Path, *, rounds: int, threads: int = 1) -> OperatorProfile:
        from lesiontk.backends.onnx.profile import profile_operators

        with ONNXEngine(path, threads) as engine:
            return profile_operators(path, rounds, threads, engine.entries)

    def read_tensors(self, path: Path) -> TensorReader:
        import onnx

        return tensor_reader(onnx.load(path))

    def read_both(self, parent: Path, child: Path) -> tuple[TensorReader, TensorReader]:
        import onnx

        from lesiontk.backends.onnx.matching import match_tensors

        models = onnx.load(parent), onnx.load(child)
        matched = match_tensors(*models)
        read_child = tensor_reader(models[1])

        def read(image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
            values = read_child(image)
            return {name: values[own] for name, own in matched.items() if own in values}

        return tensor_reader(models[0]), read

    def list_layers(self, path: Path) -> tuple[str, ...]:
        import onnx

        from lesiontk.backends.onnx.graph import group_layers, strip_normalization

        model = onnx.load(path)
        strip_normalization(model)
        return tuple(group_layers(model))

    def examine_runtime(self) -> tuple[Execution, ...]:
        return try_providers()

    def carries_description(self, path: Path) -> bool:
        from lesiontk.backends.onnx.file import read_description

        return read_description(path) is not None

    def open_foreign(self, path: Path, description: ForeignDescription, threads: int) -> Engine:
        from lesiontk.backends.onnx.foreign import ForeignONNXEngine

        return ForeignONNXEngine(path, description, threads)


def convert_tflite(path: Path) -> Any:
    """Return the ONNX model of a float32 flatbuffer; input uint8 NHWC ``image``."""
    from lesiontk.backends.onnx.from_tflite import onnx_from_tflite
    from lesiontk.backends.onnx.graph import name_canonically, rename_graph_io

    model = onnx_from_tflite(path)
    rename_graph_io(model)
    name_canonically(model)
    return model


def halve(model: Any) -> Any:
    """Return the float16 model derived from a float32 one; graph IO and Softmax stay float32.

    ONNX Runtime computes in float16 only if its provider supports it. On an x86 CPU it does not:
    the file is halved, not the latency.
    """
    from lesiontk.backends.onnx.float16 import convert_to_float16

    convert_to_float16(model)
    del model.graph.value_info[:]
    return model


def quantize_static(model: Any, plan: QuantizationPlan) -> tuple[Any, Quantization]:
    """Return the Q/DQ int8 model derived from a float32 one, and how it is quantized.

    Activations are uint8 and weights int8, which ONNX Runtime's x86 and ARM kernels support
    directly; the input's bytes are the first quantized tensor. On x86 without VNNI two 8-bit
    products overflow 16 bits, except in slower kernels (`EXACT`) or with 7-bit weights
    (`reduce_range`).
    """
    from lesiontk.backends.onnx.bias_correction import correct_biases
    from lesiontk.backends.onnx.bias_range import leave_room_for_biases, read_biases
    from lesiontk.backends.onnx.graph import (
        ACTIVATIONS,
        group_layers,
        separate_weights,
        set_byte_input,
    )
    from lesiontk.backends.onnx.graph import strip_normalization as strip

    kinds = import_onnxruntime("quantization").QuantType
    calibrate = import_onnxruntime("quantization.calibrate")
    ranges = plan.find_ranges(lambda: tensor_reader(model))
    for node in model.graph.node:
        if node.op_type in ACTIVATIONS:  # its only input is clipped to its range
            ranges.setdefault(node.input[0], ranges[node.output[0]])
    separate_weights(model)
    corrected = 0
    if plan.correct_bias:
        limit = REDUCED_LIMIT if plan.reduce_range else LIMIT
        images = plan.images_for_means()
        corrected = correct_biases(model, tensor_reader(model), images, limit, plan.float_layers)
    biases = read_biases(model)
    stripped = strip(model)
    ranges[stripped.tensor] = stripped.quantization.range()
    data = {
        name: calibrate.TensorData(
            lowest=np.array(low, np.float32), highest=np.array(high, np.float32)
        )
        for name, (low, high) in ranges.items()
    }
    keep = {name.lower() for name in plan.keep_float}
    floating = members_of(group_layers(model), plan.float_layers)
    quantizer = import_onnxruntime("quantization.qdq_quantizer").QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=plan.reduce_range,
        weight_qType=kinds.QInt8,
        activation_qType=kinds.QUInt8,
        tensors_range=calibrate.TensorsData(calibrate.CalibrationMethod.MinMax, data),
        nodes_to_quantize=[],
        nodes_to_exclude=[n.name for n in model.graph.node if n.output[0] in floating],
        op_types_to_quantize=[name for name in QUANTIZED if name.lower() not in keep],
        extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantized = quantizer.model.model
    set_byte_input(quantized, stripped, to_float=bool(plan.float_layers))
    leave_room_for_biases(quantized, biases)
    return quantized, Quantization(
        weight_bits=7 if plan.reduce_range else 8, activation_bits=8, corrected_biases=corrected
    )


def tensor_reader(model: Any) -> TensorReader:
    """Return a function that returns every float tensor of a float model for one image."""
    from lesiontk.backends.onnx.graph import INPUT, expose_tensors

    session, names = _open_exposed(*expose_tensors(model))

    def read(image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        return dict(zip(names, session.run(names, {INPUT: image}), strict=True))

    return read


def _open_exposed(model: Any, names: list[str]) -> tuple[Any, list[str]]:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Optimizations would fuse away tensors whose range is needed.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]), names
