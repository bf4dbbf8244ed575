"""Reduced precisions of a float32 TFLite file, derived from the file itself."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, Final

import numpy as np
from ai_edge_quantizer import algorithm_manager, quantizer, recipe_manager
from ai_edge_quantizer.qtyping import (
    ComputePrecision,
    OpQuantizationConfig,
    TensorDataType,
    TensorQuantizationConfig,
    TFLOperationName,
)
from ai_edge_quantizer.utils.tfl_flatbuffer_utils import TFL_OP_NAME_TO_CODE

from lesiontk.backends.backend import QuantizationPlan
from lesiontk.backends.operator_groups import members_of
from lesiontk.backends.tflite.bias_correction import WEIGHTED, correct_biases
from lesiontk.backends.tflite.bias_range import leave_room_for_biases, read_biases
from lesiontk.backends.tflite.graph import (
    OPERATOR_NAMES,
    TYPE_NAMES,
    allow_any_scale,
    group_layers,
    operator_name,
    read_model,
    set_byte_input,
    strip_normalization,
)
from lesiontk.backends.tflite.tensors import tensor_reader
from lesiontk.calibration.ranges import Ranges

ACTIVATION_BITS: Final = {"int8": 8, "mixed": 8, "int16x8": 16}
"""Bits of the activations in each static precision; weights have 8."""
INTEGER_KINDS: Final = frozenset(
    OPERATOR_NAMES[TFL_OP_NAME_TO_CODE[name]]
    for name in algorithm_manager.MIN_MAX_OP_NAME_MATERIALIZE_FUNC_DICT
    if name in TFL_OP_NAME_TO_CODE
)
"""The kinds of operators with an integer form in ai-edge-quantizer."""


def quantize_static(
    content: bytes, plan: QuantizationPlan, activation_bits: int = 8
) -> tuple[bytes, int]:
    """Return the integer flatbuffer derived from a float32 one, and the number of corrected biases.

    The input's normalization becomes the uint8 input's scale and zero point. Softmax stays in
    float: on a few logits it costs nothing, and int8 probabilities have steps of 1/256.
    """
    ranges = plan.find_ranges(lambda: tensor_reader(content))
    corrected = 0
    if plan.correct_bias:
        read = tensor_reader(content)
        images = plan.images_for_means()
        content, corrected = correct_biases(content, read, images, plan.float_layers)
    core, byte_input = strip_normalization(content)
    model = read_model(core)
    graph = model.subgraphs[0]
    # The range of all 256 byte values, so that none is changed.
    ranges[graph.tensors[graph.inputs[0]].name.decode()] = byte_input.range()
    _widen_hard_swish(model, ranges)
    manager = recipe_manager.RecipeManager()
    manager.add_static_config(
        regex=".*",
        operation_name=TFLOperationName.ALL_SUPPORTED,
        activation_num_bits=activation_bits,
        weight_num_bits=8,
    )
    # Graph inputs and outputs stay float: the input gets its byte scale below, Softmax is float.
    for name in ("input", "output", *plan.keep_float):
        manager.add_quantization_config(
            regex=".*",
            operation_name=TFLOperationName[name.upper()],
            algorithm_key="no_quantize",
        )
    if plan.float_layers:
        kept = members_of(group_layers(core), plan.float_layers)
        manager.add_quantization_config(
            regex=f"^(?:{'|'.join(re.escape(name) for name in sorted(kept))});$",
            operation_name=TFLOperationName.ALL_SUPPORTED,
            algorithm_key="no_quantize",
        )
    quantized = leave_room_for_biases(_run(core, manager, ranges), read_biases(core))
    if activation_bits == 16:
        quantized = allow_any_scale(quantized)
    return set_byte_input(quantized, byte_input, to_float=bool(plan.float_layers)), corrected


def _widen_hard_swish(model: Any, ranges: Ranges) -> None:
    """Give each hard swish an output scale above its input's / 128, which LiteRT requires.

    It is smaller only where nearly all inputs are below -3: then all values are near zero.
    """
    graph = model.subgraphs[0]
    for operator in graph.operators:
        if operator_name(model, operator) != "HARD_SWISH":
            continue
        before, after = (
            graph.tensors[index].name.decode()
            for index in (operator.inputs[0], operator.outputs[0])
        )
        if before in ranges and after in ranges:
            # The range of a scale includes zero.
            least = (max(ranges[before][1], 0.0) - min(ranges[before][0], 0.0)) / 120
            low, high = ranges[after]
            ranges[after] = low, max(high, min(low, 0.0) + least)


def quantize_dynamic(content: bytes) -> bytes:
    """Return the flatbuffer with int8 weights and dynamically quantized float32 activations.

    LiteRT has no fast dynamic kernel for depthwise convolutions (its own takes three times as long
    as float32); they keep int8 weights, converted to float32 at load time.
    """
    manager = recipe_manager.RecipeManager()
    manager.add_dynamic_config(
        regex=".*", operation_name=TFLOperationName.ALL_SUPPORTED, num_bits=8
    )
    manager.add_weight_only_config(
        regex=".*", operation_name=TFLOperationName.DEPTHWISE_CONV_2D, num_bits=8
    )
    return _run(content, manager)


def halve_weights(content: bytes) -> bytes:
    """Return the flatbuffer with float16 weights, converted to float32 at load time.

    A GPU or an ARM CPU with half arithmetic may compute everything in float16.
    """
    manager = recipe_manager.RecipeManager()
    half = TensorQuantizationConfig(num_bits=16, dtype=TensorDataType.FLOAT)
    for name in WEIGHTED:
        manager.add_quantization_config(
            regex=".*",
            operation_name=TFLOperationName[name],
            algorithm_key="float_casting",
            op_config=OpQuantizationConfig(
                weight_tensor_config=half,
                compute_precision=ComputePrecision.FLOAT,
                explicit_dequantize=True,
            ),
        )
    return _run(content, manager)


def list_float_operators(content: bytes, precision: str) -> tuple[str, ...]:
    """Return the operators that do not compute in `precision`, as ``NAME -> tensor``.

    With integer activations these are all operators with a float32 result; otherwise the layers
    whose weights are not reduced, or are int8 but converted to float32.
    """
    model = read_model(content)
    graph = model.subgraphs[0]
    makers = {index: operator_name(model, op) for op in graph.operators for index in op.outputs}
    left = []
    for op in graph.operators:
        name = operator_name(model, op)
        if precision in ACTIVATION_BITS:
            result = TYPE_NAMES[graph.tensors[op.outputs[0]].type]
            is_left = result == "float32" and name != "DEQUANTIZE"
        else:
            weight = op.inputs[1] if name in WEIGHTED else None
            wide = weight is not None and TYPE_NAMES[graph.tensors[weight].type] == "float32"
            # Half weights come through DEQUANTIZE by design.
            is_left = wide and not (precision == "float16" and makers.get(weight) == "DEQUANTIZE")
        if is_left:
            left.append(f"{name} -> {graph.tensors[op.outputs[0]].name.decode()}")
    return tuple(left)


def _run(content: bytes, manager: Any, ranges: Ranges | None = None) -> bytes:
    job = quantizer.Quantizer(bytearray(content), manager.get_quantization_recipe())
    statistics = None if ranges is None else _statistics(ranges)
    # It shows a progress bar for large models even if disabled.
    silence = io.StringIO()
    with redirect_stdout(silence), redirect_stderr(silence), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = job.quantize(statistics, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


def _statistics(ranges: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    return {
        name: {"min": np.full((1, 1, 1, 1), low), "max": np.full((1, 1, 1, 1), high)}
        for name, (low, high) in ranges.items()
    }
