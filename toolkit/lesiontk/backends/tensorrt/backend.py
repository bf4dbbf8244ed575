"""Back end ``tensorrt``: explicit Q/DQ int8 and float16 graphs, made from the float ONNX engine.

``mixed`` has no Q/DQ around the layers that int8 harms most: they compute in float16, or in float32
where their values are near float16's limit.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lesiontk.backends.backend import (
    BackendInfo,
    ConversionRecord,
    Engine,
    EngineStructure,
    PrecisionInfo,
    Quantization,
    QuantizationPlan,
    dump_spec,
)
from lesiontk.backends.execution import NOTHING, Execution
from lesiontk.backends.onnx.file_backend import ONNXFileBackend
from lesiontk.backends.operator_profile import OperatorProfile
from lesiontk.backends.tensorrt.installation import (
    MODULES,
    explain_no_builder,
    explain_no_gpu,
    find_installation,
)
from lesiontk.backends.tensorrt.structure import NOTHING_TO_COMPUTE, explain_float
from lesiontk.calibration.ranges import Ranges, TensorReader
from lesiontk.errors import DataError, MissingRequirementError
from lesiontk.records import Availability, EngineSpec

AHEAD_OF_TIME = "SM86"
"""The GPU for which an engine is built at conversion as a proof: Ampere, as Orin."""
HEADROOM = 8
"""Safety factor of float16 layers over the largest values on the calibration images."""


class TensorRTBackend(ONNXFileBackend):
    """TensorRT where there is a GPU; elsewhere the graph is checked, built, and emulated."""

    info: ClassVar[BackendInfo] = BackendInfo(
        name="tensorrt",
        title="TensorRT",
        precisions={
            "float32": PrecisionInfo(derived_from="onnx:float32"),
            "float16": PrecisionInfo(derived_from="onnx:float32"),
            "int8": PrecisionInfo(derived_from="onnx:float32", calibrated=True),
            "mixed": PrecisionInfo(derived_from="onnx:float32", calibrated=True, mixed="float16"),
        },
        suffix=".onnx",
        tools=("onnx", "onnxruntime"),
        returns_features=True,
        profiles=True,
        opt_in=True,
    )

    def available(self) -> Availability:
        """Return the version of TensorRT, if any: graphs are made and emulated anywhere.

        `examine_runtime` shows whether engines run in TensorRT itself.
        """
        state = super().available()
        installed = find_installation()
        if installed is None or not state.available:
            return state
        name, _, version = str(installed).partition(" ")
        return Availability(True, versions={**state.versions, name: version})

    def list_conversion_tools(self) -> tuple[str, ...]:
        """Return the tools that make and emulate the graph, and TensorRT, which examines it."""
        return (*self.info.tools, *MODULES.values())

    def list_runtime_tools(self) -> tuple[str, ...]:
        """Return TensorRT if there is a GPU, else the tools that emulate it."""
        return self.info.tools if explain_no_gpu() else tuple(MODULES.values())

    def _convert(
        self,
        source: Path,
        precision: str,
        spec: EngineSpec,
        quantization: QuantizationPlan | None,
        out: Path,
    ) -> ConversionRecord:
        import onnx

        from lesiontk.backends.onnx.backend import tensor_reader
        from lesiontk.backends.onnx.bias_correction import correct_biases
        from lesiontk.backends.onnx.float16 import convert_to_float16
        from lesiontk.backends.onnx.graph import embed_spec
        from lesiontk.backends.tensorrt.graph import prepare_graph
        from lesiontk.backends.tensorrt.quantize import LIMIT, insert_quantization

        original = onnx.load(source)
        model = prepare_graph(original)
        how = Quantization()
        if quantization is not None:
            read = tensor_reader(original)
            ranges = find_ranges(original, read, quantization)
            kept = quantization.float_layers
            corrected = 0
            if quantization.correct_bias:
                images = quantization.images_for_means()
                corrected = correct_biases(model, read, images, LIMIT, kept)
            half = choose_half(model, kept, ranges)
            insert_quantization(model, ranges, quantization.keep_float, kept)
            convert_to_float16(model, only=half)
            mixed = precision == "mixed"
            how = Quantization(
                weight_bits=8,
                activations="symmetric",
                corrected_biases=corrected,
                float_layers=len(kept) if mixed else None,
                float16_layers=len(half & kept) if mixed else None,
            )
        elif precision == "float16":
            convert_to_float16(model)
        embed_spec(model, dump_spec(spec))
        onnx.checker.check_model(model, full_check=True)
        name = f"tensorrt_{precision}.onnx"
        onnx.save(model, out / name)
        return ConversionRecord(name, quantization=how)

    def examine(self, path: Path, precision: str) -> dict[str, Any]:
        """Return the results of checks, parser and an ahead-of-time build of a graph.

        Raises `DataError` if they refuse it. Without TensorRT for RTX nothing is built.
        """
        from lesiontk.backends.tensorrt.build import BuildSettings, build_engine
        from lesiontk.backends.tensorrt.check import require_model

        document: dict[str, Any] = {"check": require_model(path).to_document(), "build": None}
        installed = find_installation()
        if installed is not None and installed.builds_without_gpu:
            plan = build_engine(path, precision, BuildSettings(capabilities=(AHEAD_OF_TIME,)))
            if not plan.content:
                raise DataError(f"{path.name}: TensorRT built an empty engine.")
            document["build"] = plan.describe().to_document()
        return document

    def open(self, path: Path, *, threads: int = 1) -> Engine:
        from lesiontk.backends.tensorrt.engine import EmulatedEngine, GPUEngine

        reason = explain_no_gpu()
        emulated = EmulatedEngine(path, threads, reason)
        if reason:
            return emulated
        with emulated:  # it has checked the file and read its description
            return GPUEngine(path, emulated.spec)

    def profile(self, path: Path, *, rounds: int, threads: int = 1) -> OperatorProfile:
        from lesiontk.backends.tensorrt.engine import GPUEngine

        reason = explain_no_gpu()
        if reason:
            raise MissingRequirementError(
                f"{path.name} is emulated here ({reason}); its layers are timed on the GPU."
            )
        with GPUEngine(path, self.read_spec(path)) as engine:
            return engine.profile(rounds)

    def inspect(self, path: Path) -> EngineStructure:
        from lesiontk.backends.tensorrt.structure import inspect_graph

        return inspect_graph(path)

    def list_float_operators(self, path: Path, precision: str) -> tuple[str, ...]:
        import onnx

        from lesiontk.backends.tensorrt.quantize import split_by_type

        if not self.info.precisions[precision].calibrated:
            return ()
        left = split_by_type(onnx.load(path).graph)[1]
        return tuple(f"{node.op_type} {node.name}" for node in left)

    def _explain_float(self, kind: str, precision: str) -> str | None:
        if precision == "mixed":
            return NOTHING_TO_COMPUTE.get(kind)
        return explain_float(kind)

    def list_layers(self, path: Path) -> tuple[str, ...]:
        import onnx

        from lesiontk.backends.tensorrt.graph import prepare_graph
        from lesiontk.backends.tensorrt.quantize import list_layers

        return list_layers(prepare_graph(onnx.load(path)).graph)

    def examine_runtime(self) -> tuple[Execution, ...]:
        from lesiontk.backends.tensorrt.engine import explain_emulation

        no_gpu, no_builder, name = explain_no_gpu(), explain_no_builder(), str(find_installation())
        runtime = Execution("runtime", "TensorRT", "TensorRT", name)
        built_by = NOTHING if no_builder else "TensorRT"
        return (
            explain_emulation(no_gpu) if no_gpu else runtime,
            Execution("builder", "TensorRT", built_by, no_builder or name),
        )


def find_ranges(model: Any, read: TensorReader, plan: QuantizationPlan) -> Ranges:
    """Return the range of every tensor; those of the input normalization cover all 256 bytes.

    Normalization is monotonic in each channel, so the darkest and the brightest image give its
    limits.
    """
    from lesiontk.backends.onnx.constants import normalized_tensors
    from lesiontk.backends.tensorrt.graph import input_shape

    ranges = plan.find_ranges(lambda: read)
    dark = np.zeros((1, *input_shape(model)), np.uint8)
    extremes = [read(image) for image in (dark, dark + np.uint8(255))]
    for name in normalized_tensors(model.graph) & set(extremes[0]):
        values = np.concatenate([values[name].ravel() for values in extremes])
        ranges[name] = (min(float(values.min()), 0.0), max(float(values.max()), 0.0))
    return ranges


def choose_half(model: Any, layers: Collection[str], ranges: Ranges) -> frozenset[str]:
    """Return the outputs of all operators of these layers whose values fit float16.

    Raises `ValueError` for an unknown layer.
    """
    from lesiontk.backends.onnx.float16 import GREATEST
    from lesiontk.backends.onnx.graph import group_layers
    from lesiontk.backends.operator_groups import members_of

    wide = {name for name, limits in ranges.items() if max(map(abs, limits)) > GREATEST / HEADROOM}
    groups = group_layers(model)
    members = members_of(groups, layers)
    too_wide = {
        node.output[0]
        for node in model.graph.node
        if node.output[0] in members and wide & {*node.input, *node.output}
    }
    return members_of(groups, [name for name in layers if not too_wide & set(groups[name])])
