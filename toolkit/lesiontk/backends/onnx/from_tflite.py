"""tf2onnx in a separate process, so that equal files give equal graphs.

tf2onnx keeps a tensor's readers in sets of strings and numbers its names with a counter; its
optimizers depend on the order of both. With another hash seed of Python, or after another
conversion, the same file gave another graph, sometimes with a redundant Reshape. Here the seed is
fixed and the counter starts at zero.

Run as ``python -m lesiontk.backends.onnx.from_tflite SOURCE OUT``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from lesiontk.errors import DataError

OPSET = 17  # the newest that TensorRT 8.5 (JetPack 5) reads
# Without the second, tf2onnx copies the graph before each optimization and silently skips an
# optimization that fails.
SETTINGS = {"PYTHONHASHSEED": "0", "TF2ONNX_CATCH_ERRORS": "FALSE"}


def onnx_from_tflite(path: Path) -> Any:
    """Return the ONNX model of a float32 flatbuffer, converted by tf2onnx.

    Raises `DataError` with tf2onnx's last message if it cannot convert the file, or with the
    operators that ONNX lacks.
    """
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model.onnx"
        code, errors = _run_module(str(path), str(out))
        if code != 0:
            last = (errors.strip().splitlines() or ["no message"])[-1]
            raise DataError(f"tf2onnx cannot convert {path.name} (exit code {code}): {last}")
        model = onnx.load(out)
    refuse_unknown(model, path.name)
    return model


def _run_module(*arguments: str) -> tuple[int, str]:
    """Run this module in a process of its own; return its exit code and standard error."""
    command = [sys.executable, "-W", "ignore", "-m", __name__, *arguments]
    environment = {**os.environ, **SETTINGS}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def refuse_unknown(model: Any, name: str) -> None:
    """Raise `DataError` for TFLite operators that tf2onnx did not convert."""
    left = {node.op_type for node in model.graph.node if node.op_type.startswith("TFL_")}
    if left:
        raise DataError(
            f"{name} has {', '.join(sorted(left))}, which tf2onnx does not convert; expected a "
            "network without such layers, or a TFLite target."
        )


def main(source: Path, out: Path) -> None:
    """Convert one file."""
    from lesiontk.system.frameworks import import_tensorflow

    import_tensorflow()
    import tf2onnx

    _leave_constants_alone(tf2onnx.graph.Node)
    _keep_biases()
    tf2onnx.convert.from_tflite(str(source), opset=OPSET, output_path=str(out))


def _leave_constants_alone(node: Any) -> None:
    """Keep tf2onnx from copying every weight after each of its two dozen optimizations.

    After each it writes a node's attributes back into its protobuf; for a constant these are the
    weights, which no optimization changes in place. The graph is the same, in a third of the time.
    """
    update = node.update_proto

    def update_proto(self: Any, *storage: Any, **named: Any) -> None:
        if not self.is_const():
            update(self, *storage, **named)

    node.update_proto = update_proto


def _keep_biases() -> None:
    """Flatten the input of a fully connected layer before tf2onnx, which would drop its bias.

    TFLite omits a Flatten after pooling with kept dimensions, as in MobileNetV3.
    """
    import numpy as np
    from tf2onnx.handler import tf_op
    from tf2onnx.tflite_handlers.tfl_math import TflFullyConnectedOp
    from tf2onnx.utils import make_name

    def to_tf(graph: Any, node: Any, **named: Any) -> None:
        values = node.input[0]
        if node.attr["keep_num_dims"].i == 0 and graph.get_rank(values) != 2:
            width = graph.get_shape(node.input[1])[1]
            shape = graph.make_const(make_name("flat"), np.array([-1, width], np.int64))
            flat = graph.make_node(
                "Reshape", [values, shape.output[0]], shapes=[[-1, width]],
                dtypes=[graph.get_dtype(values)],
            )  # fmt: skip
            flat.skip_conversion = True
            graph.replace_input(node, values, flat.output[0], 0)
        TflFullyConnectedOp.to_tf(graph, node, **named)

    tf_op.register_handler(to_tf, 0, ["TFL_FULLY_CONNECTED"], "com.google.tensorflow", {})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
