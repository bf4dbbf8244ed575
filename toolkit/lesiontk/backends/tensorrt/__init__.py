"""Back end ``tensorrt``: graphs for TensorRT, checked, built and run."""
