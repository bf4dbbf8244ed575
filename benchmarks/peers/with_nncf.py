"""NNCF's post-training quantization of the graph of tf2onnx, for OpenVINO, with its defaults."""

import subprocess
import sys
from pathlib import Path

import nncf
import numpy as np
import onnx

folder, out = map(Path, sys.argv[1:])
graph = out.with_name("float32.onnx")
convert = ["--saved-model", folder / "saved_model", "--output", graph, "--opset", "17"]
subprocess.run([sys.executable, "-m", "tf2onnx.convert", *convert], check=True)
pixels = np.load(folder / "calibration.npy")
data = nncf.Dataset(pixels, lambda image: {"image": image[None].astype("float32")})
onnx.save(nncf.quantize(onnx.load(graph), data, subset_size=len(pixels)), out)
