"""Intel Neural Compressor's static quantization of the graph of tf2onnx, with its defaults.

Version 2.6: the 3.x releases no longer quantize ONNX graphs.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
from neural_compressor import PostTrainingQuantConfig, quantization

folder, out = map(Path, sys.argv[1:])
graph = out.with_name("float32.onnx")
convert = ["--saved-model", folder / "saved_model", "--output", graph, "--opset", "17"]
subprocess.run([sys.executable, "-m", "tf2onnx.convert", *convert], check=True)
pixels = np.load(folder / "calibration.npy")


class Images:
    """The calibration images, one at a time, and no label."""

    batch_size = 1

    def __iter__(self):
        return ((image[None].astype("float32"), 0) for image in pixels)


config = PostTrainingQuantConfig(quant_format="QDQ", calibration_sampling_size=len(pixels))
quantization.fit(str(graph), config, calib_dataloader=Images()).save(str(out))
