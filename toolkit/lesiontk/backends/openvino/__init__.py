"""Back end ``openvino``."""
