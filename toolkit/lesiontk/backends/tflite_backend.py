"""Back end ``tflite`` (LiteRT): converted from Keras once, int8 derived from the float file."""

from __future__ import annotations

import io
import logging
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
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
    QuantizationPlan,
    dump_spec,
    parse_spec,
)
from lesiontk.backends.input_quantization import InputQuantization
from lesiontk.backends.keras_backend import load_model
from lesiontk.calibration.ranges import Ranges, collect_ranges
from lesiontk.errors import DataError
from lesiontk.frameworks import import_tensorflow
from lesiontk.native_output import hold_native_output
from lesiontk.records import EngineSpec

logger = logging.getLogger(__name__)


class TFLiteEngine(Engine):
    """Runs a ``.tflite`` file, one image at a time, with XNNPACK."""

    def __init__(self, path: Path, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        from lesiontk.backends.tflite_graph import extract_spec

        content = path.read_bytes()
        if content[4:8] != b"TFL3":
            raise DataError(f"{path.name} is not a TFLite flatbuffer (it lacks the mark TFL3).")
        try:  # first, for it alone checks the whole structure
            with hold_native_output():
                interpreter = Interpreter(model_content=content, num_threads=threads)
                interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise DataError(f"{path.name} is no model LiteRT can load: {error}") from error
        super().__init__(parse_spec(extract_spec(content), path))
        self._interpreter = interpreter
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]

    def _infer(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        outputs = np.empty((len(images), len(self.spec.labels)), np.float32)
        for row in range(len(images)):
            self._interpreter.set_tensor(self._input, images[row : row + 1])
            self._interpreter.invoke()
            outputs[row] = self._interpreter.get_tensor(self._output)[0]
        return outputs

    def close(self) -> None:
        self._interpreter = None


class TFLiteBackend(Backend):
    """LiteRT's interpreter; ai-edge-quantizer for int8."""

    info: ClassVar[BackendInfo] = BackendInfo(
        name="tflite",
        precisions={
            "float32": PrecisionInfo(derived_from="model"),
            "int8": PrecisionInfo(derived_from="tflite:float32", calibrated=True),
        },
        suffix=".tflite",
        tools=("ai-edge-litert", "ai-edge-quantizer", "tensorflow"),
    )

    def _convert(
        self,
        source: Path,
        precision: str,
        spec: EngineSpec,
        quantization: QuantizationPlan | None,
        out: Path,
    ) -> ConversionRecord:
        from lesiontk.backends.tflite_graph import embed_spec

        left: tuple[str, ...] = ()
        if quantization is None:
            content = convert_keras(source)
        else:
            content = quantize_static(source.read_bytes(), quantization)
            left = _float_operators(content)
        name = f"tflite_{precision}.tflite"
        (out / name).write_bytes(embed_spec(content, dump_spec(spec)))
        return ConversionRecord(name, left)

    def open(self, path: Path, *, threads: int = 1) -> Engine:
        return TFLiteEngine(path, threads)

    def inspect(self, path: Path) -> EngineStructure:
        from lesiontk.backends.tflite_graph import TYPE_NAMES, operator_name, read_model

        model = read_model(path.read_bytes())
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
        return EngineStructure(dict(weights), dict(operators))


def convert_keras(path: Path) -> bytes:
    """Return the float32 flatbuffer of a ``.keras`` file: uint8 [1, S, S, 3] to probabilities."""
    tf = import_tensorflow()
    model = load_model(path)
    height, width, channels = model.input_shape[1:]

    def forward(image: Any) -> dict[str, Any]:
        return {"probabilities": model(tf.cast(image, tf.float32), training=False)}

    signature = [tf.TensorSpec([1, height, width, channels], tf.uint8, name="image")]
    function = tf.function(forward, input_signature=signature).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], model)
    with warnings.catch_warnings(), hold_native_output():
        warnings.simplefilter("ignore")  # the converter's own deprecations
        return bytes(converter.convert())


def quantize_static(content: bytes, plan: QuantizationPlan) -> bytes:
    """Return the int8 flatbuffer derived from a float32 one.

    The input's normalisation becomes the uint8 input's scale and zero point. Softmax stays in
    float: on a few logits it costs nothing, and int8 probabilities come in steps of 1/256.
    """
    from ai_edge_quantizer import quantizer, recipe_manager
    from ai_edge_quantizer.qtyping import TFLOperationName

    from lesiontk.backends.tflite_graph import set_byte_input, strip_normalisation

    run = tensor_reader(content)
    ranges = collect_ranges(run, (image[np.newaxis] for image in plan.images), plan.observer)
    core, byte_input = strip_normalisation(content)
    _set_input_range(core, ranges, byte_input)
    manager = recipe_manager.RecipeManager()
    manager.add_static_config(
        regex=".*",
        operation_name=TFLOperationName.ALL_SUPPORTED,
        activation_num_bits=8,
        weight_num_bits=8,
    )
    # The border stays float here: the input gets its byte scale below, the output is Softmax's.
    for name in ("input", "output", *plan.keep_float):
        manager.add_quantization_config(
            regex=".*",
            operation_name=TFLOperationName[name.upper()],
            algorithm_key="no_quantize",
        )
    job = quantizer.Quantizer(bytearray(core), manager.get_quantization_recipe())
    statistics = {
        name: {"min": np.full((1, 1, 1, 1), low), "max": np.full((1, 1, 1, 1), high)}
        for name, (low, high) in ranges.items()
    }
    # Told not to, it still draws a bar for large models.
    silence = io.StringIO()
    with redirect_stdout(silence), redirect_stderr(silence), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = job.quantize(statistics, enable_progress_bar=False, enable_progress_report=False)
    return set_byte_input(bytes(result.quantized_model), byte_input)


def tensor_reader(content: bytes) -> Callable[[NDArray[np.uint8]], dict[str, NDArray[Any]]]:
    """Return a function that gives every float tensor of a float flatbuffer for one image."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that keeping all tensors takes memory
        interpreter = Interpreter(
            model_content=content,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]["index"]
    written = {int(index) for node in interpreter._get_ops_details() for index in node["outputs"]}
    tensors = [
        (detail["name"], detail["index"])
        for detail in interpreter.get_tensor_details()
        if detail["index"] in written and detail["dtype"] == np.float32
    ]

    def read(image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        interpreter.set_tensor(entry, image)
        interpreter.invoke()
        return {name: interpreter.get_tensor(index) for name, index in tensors}

    return read


def _set_input_range(core: bytes, ranges: Ranges, byte_input: InputQuantization) -> None:
    """Give the stripped graph's input the range of all 256 byte values, so that none is changed."""
    from lesiontk.backends.tflite_graph import read_model

    graph = read_model(core).subgraphs[0]
    name = graph.tensors[graph.inputs[0]].name.decode()
    ranges[name] = byte_input.range()


def _float_operators(content: bytes) -> tuple[str, ...]:
    from lesiontk.backends.tflite_graph import TYPE_NAMES, operator_name, read_model

    model = read_model(content)
    graph = model.subgraphs[0]
    return tuple(
        f"{operator_name(model, op)} -> {graph.tensors[op.outputs[0]].name.decode()}"
        for op in graph.operators
        if TYPE_NAMES[graph.tensors[op.outputs[0]].type] == "float32"
        and operator_name(model, op) != "DEQUANTIZE"
    )
