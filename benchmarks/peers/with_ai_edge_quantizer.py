"""ai-edge-quantizer on TensorFlow's float32 flatbuffer: its static int8 recipe, own calibration."""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from ai_edge_quantizer import quantizer, recipe

folder, out = map(Path, sys.argv[1:])
pixels = np.load(folder / "calibration.npy")
content = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved_model")).convert()
job = quantizer.Quantizer(bytearray(content), recipe.static_wi8_ai8())
data = {"serving_default": [{"image": image[None].astype("float32")} for image in pixels]}
out.write_bytes(job.quantize(job.calibrate(data)).quantized_model)
