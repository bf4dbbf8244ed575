"""ONNX Runtime's quantize_static on the graph of tf2onnx, with its advice: pre-processed, Q/DQ."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

folder, out = map(Path, sys.argv[1:])
graph = out.with_name("float32.onnx")
convert = ["--saved-model", folder / "saved_model", "--output", graph, "--opset", "17"]
subprocess.run([sys.executable, "-m", "tf2onnx.convert", *convert], check=True)


class Images(CalibrationDataReader):
    """The calibration images, one at a time."""

    rows = iter(np.load(folder / "calibration.npy"))

    def get_next(self):
        image = next(self.rows, None)
        return None if image is None else {"image": image[None].astype("float32")}


quant_pre_process(graph, graph)
quantize_static(graph, out, Images(), per_channel=True)
