"""From a ``.keras`` file to a float32 flatbuffer by TensorFlow's converter."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from lesiontk.backends.keras.backend import load_model
from lesiontk.backends.tflite.graph import dump_model, read_model
from lesiontk.errors import DataError
from lesiontk.system.frameworks import import_tensorflow
from lesiontk.system.native_output import suppress_native_output

INPUT, OUTPUT = "image", "probabilities"


def convert_keras(path: Path) -> bytes:
    """Return the float32 flatbuffer of a ``.keras`` file: uint8 [1, S, S, 3] to probabilities.

    Given a Keras model, the converter saves it, loads it and traces its layers again, which takes
    longer than the conversion for a deep network. A frozen graph avoids that: operators, weights
    and outputs are the same.
    """
    tf = import_tensorflow()
    model = load_model(path)
    for layer in model.layers:
        if getattr(layer, "groups", 1) > 1:  # it would be compiled as a separate function
            layer._jit_compiled_convolution_op = layer.convolution_op
    function = tf.function(
        lambda image: tf.identity(model(tf.cast(image, tf.float32), training=False), name=OUTPUT),
        input_signature=[tf.TensorSpec([1, *model.input_shape[1:]], tf.uint8, name=INPUT)],
    ).get_concrete_function()
    ends = [[function.graph.get_tensor_by_name(f"{name}:0")] for name in (INPUT, OUTPUT)]
    converter = tf.compat.v1.lite.TFLiteConverter(freeze(function), *ends)
    with warnings.catch_warnings(), suppress_native_output():
        warnings.simplefilter("ignore")  # the converter's own deprecations
        return _name_ends(bytes(converter.convert()))


def freeze(function: Any) -> Any:
    """Return the ``GraphDef`` of a concrete function with its variables' values as constants."""
    tf = import_tensorflow()
    variables = {id(variable.handle): variable.numpy() for variable in function.graph.variables}
    handles, constants = {}, {}
    for outer, inner in function.graph.captures:
        if id(outer) in variables:
            handles[inner.op.name] = variables[id(outer)]
        else:
            constants[inner.op.name] = outer.numpy()
    traced = function.graph.as_graph_def()
    if traced.library.function:
        called = ", ".join(entry.signature.name for entry in traced.library.function)
        raise DataError(
            f"the model calls the function {called}; expected layers without control flow."
        )
    frozen = tf.compat.v1.GraphDef(versions=traced.versions)
    for node in traced.node:
        if node.op == "NoOp" or node.name in handles:
            continue
        value = constants.get(node.name)
        if node.op == "ReadVariableOp":
            value = handles.get(node.input[0])
        if value is not None:
            tensor = tf.make_tensor_proto(value)
            kept = frozen.node.add(name=node.name, op="Const")
            kept.attr["dtype"].type = tensor.dtype
            kept.attr["value"].tensor.CopyFrom(tensor)
            continue
        if any(name in handles for name in node.input):
            raise DataError(f"{node.op} {node.name} uses a variable for more than reading.")
        kept = frozen.node.add()
        kept.CopyFrom(node)
        kept.input[:] = [name for name in node.input if not name.startswith("^")]
    return frozen


def _name_ends(content: bytes) -> bytes:
    """Return the flatbuffer with a signature, by which runtimes find input and output by name."""
    model = read_model(content)
    graph = model.subgraphs[0]
    signature = schema.SignatureDefT()
    signature.signatureKey = "serving_default"
    signature.subgraphIndex = 0
    signature.inputs, signature.outputs = (
        [_tensor_map(name, index)]
        for name, index in ((INPUT, graph.inputs[0]), (OUTPUT, graph.outputs[0]))
    )
    model.signatureDefs = [signature]
    return dump_model(model)


def _tensor_map(name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry
