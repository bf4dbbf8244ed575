"""Back end ``openvino``: the ONNX engines on OpenVINO's CPU plugin, for x86 tablets and mini PCs.

OpenVINO runs the Q/DQ graph of ``onnx:int8`` as it is. ``float16`` halves the file; its operators
compute in float32. Optional: ``pip install 'lesiontk[openvino]'``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends.backend import (
    BackendInfo,
    ConversionRecord,
    Engine,
    PrecisionInfo,
    Quantization,
    QuantizationPlan,
    dump_spec,
)
from lesiontk.backends.execution import Execution
from lesiontk.backends.onnx.file_backend import ONNXFileBackend
from lesiontk.backends.operator_profile import OperatorProfile, OperatorTimes
from lesiontk.backends.requirements import check_distributions
from lesiontk.errors import DataError
from lesiontk.records import Availability, EngineSpec

DEVICE = "CPU"
PROFILE_METHOD = "OpenVINO's own counters of each node (PERF_COUNT), in whole microseconds"
WARMUP = 5
UNBIASED = (
    "OpenVINO 2026.4 returns wrong values on one thread for a layer without bias whose weights are "
    "in 8 bits"
)


class OpenVINOBackend(ONNXFileBackend):
    """OpenVINO on the CPU; its engines are those of the back end ``onnx``."""

    info: ClassVar[BackendInfo] = BackendInfo(
        name="openvino",
        title="OpenVINO",
        precisions={
            "float32": PrecisionInfo(derived_from="onnx:float32"),
            "float16": PrecisionInfo(derived_from="onnx:float32"),
            "int8": PrecisionInfo(derived_from="onnx:int8"),
        },
        suffix=".onnx",
        tools=("onnx", "openvino"),
        runtime=("openvino",),
        returns_features=True,
        profiles=True,
        opt_in=True,
    )

    def available(self) -> Availability:
        return check_distributions(
            self.info.tools, "`pip install 'lesiontk[openvino]'` installs it."
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

        from lesiontk.backends.onnx.backend import WEIGHT_BITS, halve
        from lesiontk.backends.onnx.graph import embed_spec

        model = onnx.load(source)
        made = Quantization()
        if precision == "float16":
            model = halve(model)
        elif precision == "int8":
            float_unbiased_weights(model)
            reduced = any(entry.key == WEIGHT_BITS for entry in model.metadata_props)
            made = Quantization(weight_bits=7 if reduced else 8, activation_bits=8)
        embed_spec(model, dump_spec(spec))
        onnx.checker.check_model(model, full_check=True)
        name = f"openvino_{precision}.onnx"
        onnx.save(model, out / name)
        return ConversionRecord(name, quantization=made)

    def open(self, path: Path, *, threads: int = 1) -> Engine:
        return OpenVINOEngine(path, self.read_spec(path), threads)

    def profile(self, path: Path, *, rounds: int, threads: int = 1) -> OperatorProfile:
        whole, profiled = (
            OpenVINOEngine(path, self.read_spec(path), threads, profile=profile)
            for profile in (False, True)
        )
        with whole, profiled:
            return profile_operators(whole, profiled, rounds)

    def _explain_float(self, kind: str, precision: str) -> str | None:
        return UNBIASED if kind == "MatMul" else super()._explain_float(kind, precision)

    def examine_runtime(self) -> tuple[Execution, ...]:
        import openvino

        name = str(openvino.Core().get_property(DEVICE, "FULL_DEVICE_NAME"))
        return (Execution("device", DEVICE, DEVICE, f"{name}, OpenVINO {openvino.__version__}"),)


def float_unbiased_weights(model: Any) -> None:
    """Replace the 8-bit weights of layers without bias (MatMul) by the same values in float32."""
    from lesiontk.backends.onnx.constants import (
        constants_of,
        drop_unused_constants,
        replace_constant,
    )

    graph = model.graph
    constants = constants_of(graph)
    makers = {node.output[0]: node for node in graph.node}
    for node in graph.node:
        maker = makers.get(node.input[1]) if node.op_type == "MatMul" else None
        if maker is None or maker.input[0] not in constants:
            continue
        stored, scale, *zero = (constants[name] for name in maker.input)
        centred = stored.astype(np.float32) - (zero[0].astype(np.float32) if zero else 0)
        # The weights are [K, N], with a scale for each of the N outputs or one for all.
        values = (centred * scale).astype(np.float32)
        node.input[1] = replace_constant(graph, f"{maker.output[0]}/float", values)
        graph.node.remove(maker)
    drop_unused_constants(graph)


class OpenVINOEngine(Engine):
    """An engine on OpenVINO's CPU plugin, one image at a time."""

    def __init__(
        self, path: Path, spec: EngineSpec, threads: int, *, profile: bool = False
    ) -> None:
        import openvino

        from lesiontk.backends.onnx.graph import check_closed

        super().__init__(spec)
        check_closed(path)
        core = openvino.Core()
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # By default float operators would be in bfloat16 or float16 where the CPU has it; in
            # float16 the sum of the probabilities differs from 1 by up to 2e-4.
            "INFERENCE_PRECISION_HINT": "f32",
            "PERF_COUNT": profile,
        }
        try:
            compiled = core.compile_model(core.read_model(path), DEVICE, options)
        except UnicodeDecodeError as error:  # OpenVINO's message contains a damaged name
            raise _unreadable(path, error.object.decode(errors="replace")) from error
        except RuntimeError as error:
            raise _unreadable(path, str(error)) from error
        self._request: Any = compiled.create_infer_request()

    def _infer(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        return self._infer_outputs(images)[0]

    def _infer_outputs(self, images: NDArray[np.uint8]) -> Sequence[NDArray[Any]]:
        rows = []
        for row in range(len(images)):
            results = self._request.infer([images[row : row + 1]], share_inputs=True)
            rows.append([np.array(value) for value in results.values()])
        return [np.concatenate(values) for values in zip(*rows, strict=True)]

    def read_times(self) -> list[tuple[str, str, float]]:
        """Return name, kind and ms of each node in the last inference; only with `profile`."""
        return [
            (node.node_name, node.node_type, node.real_time.total_seconds() * 1e3)
            for node in self._request.profiling_info
            if node.status == node.Status.EXECUTED
        ]

    def describe_execution(self) -> tuple[Execution, ...]:
        return (Execution("device", DEVICE, DEVICE),)

    def close(self) -> None:
        self._request = None


def profile_operators(
    whole: OpenVINOEngine, profiled: OpenVINOEngine, rounds: int
) -> OperatorProfile:
    """Return the times of each node of the plugin's graph, and of the whole without profiling."""
    image = np.random.default_rng(0).integers(0, 256, (1, *whole.spec.input_shape), np.uint8)
    samples: dict[tuple[str, str], list[float]] = {}
    wholes = []
    for turn in range(WARMUP + rounds):
        start = time.perf_counter_ns()
        whole.infer(image)
        elapsed = (time.perf_counter_ns() - start) / 1e6
        profiled.infer(image)
        if turn >= WARMUP:
            wholes.append(elapsed)
            for name, kind, ms in profiled.read_times():
                samples.setdefault((name, kind), []).append(ms)
    return OperatorProfile(
        PROFILE_METHOD,
        tuple(OperatorTimes(*key, tuple(found)) for key, found in samples.items()),
        tuple(wholes),
    )


def _unreadable(path: Path, reason: str) -> DataError:
    return DataError(f"{path.name} is not a model that OpenVINO can load: {reason}")
