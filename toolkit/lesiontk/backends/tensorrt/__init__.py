"""Back end ``tensorrt``: graphs as TensorRT reads them, checked, built and run."""
