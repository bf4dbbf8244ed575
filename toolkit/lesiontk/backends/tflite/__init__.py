"""TensorFlow Lite (LiteRT): conversion, quantization and execution of `.tflite` engines."""
