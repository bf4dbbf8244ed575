"""Image encoders as ONNX files: from the pixels of a picture to one feature vector, and a head."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper

from lesiontk.backends.backend import dump_spec
from lesiontk.backends.onnx.backend import make_session
from lesiontk.backends.onnx.graph import check_closed, embed_spec, walk_nodes
from lesiontk.errors import DataError, UsageError, suggest
from lesiontk.models.imported_pixels import PIXELS
from lesiontk.records import EngineSpec

FEATURES: Final = "features"
MIN_OPSET: Final = 13


@dataclass(frozen=True, slots=True)
class EncoderInterface:
    """How an encoder is used: `pixels` a name of `PIXELS`, `output` a tensor (default: the only
    output of the graph), `pooling` the way to one vector.

    ``class`` takes the first token of [N, T, D], ``mean`` the mean of the others, ``class_mean``
    both; of feature maps [N, D, H, W] ``mean`` averages over the positions. ``auto`` is
    ``class_mean`` for tokens, ``mean`` for maps, ``none`` for [N, D].
    """

    image_size: int
    pixels: str = "imagenet"
    output: str = ""
    pooling: str = "auto"


def build_feature_graph(path: Path, interface: EncoderInterface) -> onnx.ModelProto:
    """Return a graph from ``image`` uint8 [N, S, S, 3] RGB to ``features`` float32 [N, D].

    Raises `DataError` for a file that is no encoder of RGB images of this size, and `UsageError`
    for an unknown output tensor.
    """
    check_closed(path)
    encoder = _cut(onnx.load(path), path, interface.output)
    opset = next((entry.version for entry in encoder.opset_import if entry.domain == ""), 0)
    if opset < MIN_OPSET:
        raise DataError(
            f"{path.name} has opset {opset}; expected {MIN_OPSET} or later: export it again, or "
            "use onnx.version_converter."
        )
    encoder = compose.add_prefix(encoder, "encoder/")
    graph = encoder.graph
    channels_first, kind = _read_input(graph.input[0], path, interface.image_size)
    shape = _measure_output(encoder, path, interface.image_size, channels_first=channels_first)
    nodes = _normalize_nodes(graph, interface.pixels, kind, channels_first=channels_first)
    for number, node in enumerate(nodes):
        graph.node.insert(number, node)
    _pool(graph, shape, path, interface.pooling, opset)
    size = interface.image_size
    del graph.input[:]
    graph.input.append(
        helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", size, size, 3])
    )
    try:
        onnx.checker.check_model(encoder)
    except onnx.checker.ValidationError as error:
        raise DataError(f"{path.name} cannot be used as an encoder: {error}") from error
    return encoder


def open_feature_graph(encoder: onnx.ModelProto, threads: int) -> Any:
    """Return ONNX Runtime's session of a feature graph, which takes one picture at a time."""
    return make_session(encoder.SerializeToString(), threads)


def add_head(
    encoder: onnx.ModelProto,
    weights: NDArray[np.float32],
    bias: NDArray[np.float32],
    spec: EngineSpec,
) -> onnx.ModelProto:
    """Return an engine: the feature graph, then softmax(features @ `weights` [D, C] + `bias`)."""
    engine = onnx.ModelProto()
    engine.CopyFrom(encoder)
    graph = engine.graph
    graph.initializer.extend(
        numpy_helper.from_array(values.astype(np.float32), name)
        for name, values in (("head_weights", weights), ("head_bias", bias))
    )
    graph.node.extend(
        [
            helper.make_node("Gemm", [FEATURES, "head_weights", "head_bias"], ["logits"], "head"),
            helper.make_node("Softmax", ["logits"], ["probabilities"], "softmax", axis=1),
        ]
    )
    del graph.output[:]
    graph.output.append(
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", len(bias)])
    )
    embed_spec(engine, dump_spec(spec))
    return engine


def expose_features(path: Path) -> tuple[onnx.ModelProto | None, int]:
    """Return an engine of `add_head` whose second output is its features, and their width; None
    and 0 for another file."""
    engine = onnx.load(path)
    heads = [n for n in engine.graph.node if n.op_type == "Gemm" and n.input[0] == FEATURES]
    weights = [w for w in engine.graph.initializer if w.name == "head_weights"]
    if not heads or not weights:
        return None, 0
    width = int(weights[0].dims[0])
    engine.graph.output.append(
        helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["N", width])
    )
    return engine, width


def _cut(model: onnx.ModelProto, path: Path, output: str) -> onnx.ModelProto:
    """Return the part of the graph from its only input to the tensor `output`."""
    constants = {entry.name for entry in model.graph.initializer}
    inputs = [entry.name for entry in model.graph.input if entry.name not in constants]
    outputs = [entry.name for entry in model.graph.output]
    if len(inputs) != 1:
        raise DataError(
            f"{path.name} has the inputs {', '.join(inputs) or 'none'}; expected one, an image. "
            "Export the image tower alone."
        )
    if not output:
        if len(outputs) != 1:
            raise UsageError(
                f"{path.name} has the outputs {', '.join(outputs)}; specify one with --output."
            )
        return model
    tensors = [name for node in model.graph.node for name in node.output]
    if output not in tensors:
        raise UsageError(
            f"{path.name} has no tensor {output!r}; expected the name of an output, such as "
            f"{', '.join(outputs)}, or of a tensor within.{suggest(output, tensors)}"
        )
    makers = {name: node for node in model.graph.node for name in node.output}
    waiting, needed = [output], set()
    while waiting:
        maker = makers.get(waiting.pop())
        if maker is not None and id(maker) not in needed:
            needed.add(id(maker))
            waiting += [name for node in walk_nodes([maker]) for name in node.input]
    kept = [node for node in model.graph.node if id(node) in needed]
    read = {name for node in walk_nodes(kept) for name in node.input}
    weights = [entry for entry in model.graph.initializer if entry.name in read]
    for field, entries in (("node", kept), ("initializer", weights)):
        copies = [type(entry).FromString(entry.SerializeToString()) for entry in entries]
        model.graph.ClearField(field)
        getattr(model.graph, field).extend(copies)
    del model.graph.output[:]
    model.graph.output.append(helper.make_empty_tensor_value_info(output))
    return model


def _read_input(value: Any, path: Path, size: int) -> tuple[bool, int]:
    """Return whether channels are the second axis, and the element type."""
    kind = value.type.tensor_type.elem_type
    shape = [d.dim_value or None for d in value.type.tensor_type.shape.dim]
    text = f"{path.name} takes {TensorProto.DataType.Name(kind)} {shape}"
    if kind not in (TensorProto.FLOAT, TensorProto.FLOAT16) or len(shape) != 4:
        raise DataError(f"{text}; expected float [N, 3, S, S] or [N, S, S, 3].")
    channels_first = shape[1] == 3
    sides = shape[2:] if channels_first else shape[1:3]
    if not channels_first and shape[3] != 3:
        raise DataError(f"{text}; expected float [N, 3, S, S] or [N, S, S, 3].")
    if any(side not in (None, size) for side in sides):
        raise UsageError(f"{text}; --image-size is {size}, expected {sides[0]}.")
    return channels_first, kind


def _normalize_nodes(graph: Any, pixels: str, kind: int, *, channels_first: bool) -> list[Any]:
    """Return the nodes from ``image`` to the encoder's input; their constants are added."""
    if pixels not in PIXELS:
        raise UsageError(
            f"--pixels is {pixels!r}; expected one of {', '.join(PIXELS)}.{suggest(pixels, PIXELS)}"
        )
    layout = PIXELS[pixels]
    constants = {
        "pixel_order": np.array(layout.order, np.int64),
        "pixel_scale": np.array(layout.scale, np.float32) * np.ones(3, np.float32),
        "pixel_offset": np.array(layout.offset, np.float32) * np.ones(3, np.float32),
    }
    graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    steps: list[tuple[str, list[str], dict[str, Any]]] = [
        ("Cast", [], {"to": TensorProto.FLOAT}),
        ("Gather", ["pixel_order"], {"axis": 3}),
        ("Mul", ["pixel_scale"], {}),
        ("Add", ["pixel_offset"], {}),
    ]
    if channels_first:
        steps.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
    if kind == TensorProto.FLOAT16:
        steps.append(("Cast", [], {"to": TensorProto.FLOAT16}))
    nodes, current = [], "image"
    for number, (operator, others, attributes) in enumerate(steps):
        last = number == len(steps) - 1
        name = graph.input[0].name if last else f"pixels_{number}"
        nodes.append(
            helper.make_node(operator, [current, *others], [name], f"pixels_{number}", **attributes)
        )
        current = name
    return nodes


def _measure_output(
    encoder: onnx.ModelProto, path: Path, size: int, *, channels_first: bool
) -> tuple[int, ...]:
    """Return the output's shape for one black picture: a file need not contain it."""
    value = encoder.graph.input[0]
    shape = (1, 3, size, size) if channels_first else (1, size, size, 3)
    kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    try:
        session = open_feature_graph(encoder, 1)
        return tuple(session.run(None, {value.name: np.zeros(shape, kind)})[0].shape)
    except Exception as error:  # its exceptions share no public base class
        raise DataError(f"{path.name} does not run on a picture {shape}: {error}") from error


def _pool(graph: Any, shape: tuple[int, ...], path: Path, pooling: str, opset: int) -> None:
    """Append the nodes from the graph's output to ``features``, which becomes its output."""
    output = graph.output[0]
    automatic = {2: "none", 3: "class_mean", 4: "mean"}.get(len(shape), "")
    chosen = automatic if pooling == "auto" else pooling
    allowed = {2: ("none",), 3: ("class", "mean", "class_mean"), 4: ("mean",)}.get(len(shape), ())
    if chosen not in allowed:
        raise UsageError(
            f"--pooling is {pooling!r} and {path.name} returns {list(shape)}; expected "
            f"{' or '.join(allowed) or 'an output [N, D], [N, T, D] or [N, D, H, W]'}."
        )
    constants: dict[str, NDArray[np.int64]] = {}

    def constant(name: str, *values: int) -> str:
        constants[name] = np.array(values, np.int64)
        return name

    def mean(tensor: str, result: str, axes: tuple[int, ...]) -> Any:
        if opset >= 18:  # axes became an input
            given = [tensor, constant("mean_axes", *axes)]
            return helper.make_node("ReduceMean", given, [result], result, keepdims=0)
        return helper.make_node(
            "ReduceMean", [tensor], [result], result, axes=list(axes), keepdims=0
        )

    tensor, parts, nodes = output.name, [], []
    if len(shape) == 4:
        nodes.append(mean(tensor, "pooled", (2, 3)))
        parts = ["pooled"]
    elif len(shape) == 3:
        axis = constant("token_axis", 1)
        if chosen != "mean":
            first = constant("first_token", 0)
            nodes += [
                helper.make_node("Gather", [tensor, first], ["token"], "token", axis=1),
                helper.make_node("Squeeze", ["token", axis], ["class_token"], "class_token"),
            ]
            parts.append("class_token")
        if chosen != "class":
            ends = (constant("second", 1), constant("last", np.iinfo(np.int64).max), axis)
            nodes += [
                helper.make_node("Slice", [tensor, *ends], ["patches"], "patches"),
                mean("patches", "mean_patch", (1,)),
            ]
            parts.append("mean_patch")
    else:
        parts = [tensor]
    nodes += [
        helper.make_node("Concat", parts, ["pooled_all"], "pooled_all", axis=1),
        helper.make_node("Cast", ["pooled_all"], [FEATURES], FEATURES, to=TensorProto.FLOAT),
    ]
    graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    graph.node.extend(nodes)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["N", None]))
