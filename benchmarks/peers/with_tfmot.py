"""Quantization-aware training with tensorflow-model-optimization: its defaults, one epoch."""

import os
import sys
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"
import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.quantization.keras import quantize

folder, out = map(Path, sys.argv[1:])
model = tf_keras.models.load_model(folder / "model.keras", compile=False)


def annotate(layer):
    """Mark a layer; the normalization has no quantized form."""
    plain = isinstance(layer, tf_keras.layers.Rescaling | tf_keras.layers.InputLayer)
    return layer if plain else quantize.quantize_annotate_layer(layer)


aware = quantize.quantize_apply(tf_keras.models.clone_model(model, clone_function=annotate))
aware.compile(tf_keras.optimizers.Adam(1e-5), "sparse_categorical_crossentropy")
aware.fit(np.load(folder / "training.npy"), np.load(folder / "targets.npy"), batch_size=32)
converter = tf.lite.TFLiteConverter.from_keras_model(aware)
converter.optimizations = [tf.lite.Optimize.DEFAULT]
converter.inference_input_type = tf.uint8
out.write_bytes(converter.convert())
