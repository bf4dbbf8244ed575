"""TensorFlow's converter alone, integer inside, as in its guide to quantization."""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

folder, out = map(Path, sys.argv[1:])
pixels = np.load(folder / "calibration.npy")
converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved_model"))
converter.optimizations = [tf.lite.Optimize.DEFAULT]
converter.representative_dataset = lambda: ([image[None].astype("float32")] for image in pixels)
converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
converter.inference_input_type = tf.uint8
out.write_bytes(converter.convert())
