"""The one place where TensorFlow, its Keras 2 and ONNX Runtime are imported and configured."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import warnings
from typing import Any

from lesiontk.errors import MissingRequirementError
from lesiontk.system.native_output import suppress_native_output


def import_tensorflow() -> Any:
    """Return ``tensorflow``, quiet and set to Keras 2.

    tensorflow-model-optimization needs Keras 2; the variable must be set before the first import.
    """
    if "tensorflow" in sys.modules:
        return sys.modules["tensorflow"]
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    verbose = "TF_CPP_MIN_LOG_LEVEL" in os.environ
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        with suppress_native_output(shown=verbose):
            import tensorflow

            tensorflow.config.list_physical_devices()  # its messages about GPUs appear here
    except ImportError as error:
        raise MissingRequirementError(
            f"TensorFlow cannot be imported ({error}); install lesiontk with its dependencies "
            "(`pip install lesiontk`), or see `lesiontk doctor`."
        ) from error
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    return tensorflow


def import_keras() -> Any:
    """Return ``tf_keras``, the Keras 2 in which every lesiontk model is built."""
    import_tensorflow()
    import tf_keras

    return tf_keras


def import_onnxruntime(module: str = "") -> Any:
    """Return ``onnxruntime``, or a module of it such as ``quantization``, without telemetry.

    By default it contacts its vendor's host during a session. The variable must be set before the
    first import; its API offers no equivalent.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        return importlib.import_module(f"onnxruntime.{module}" if module else "onnxruntime")
    except ImportError as error:
        raise MissingRequirementError(
            f"ONNX Runtime cannot be imported ({error}); install lesiontk with its dependencies "
            "(`pip install lesiontk`), or see `lesiontk doctor`."
        ) from error


def import_model_optimization() -> Any:
    """Return the Keras quantization API of ``tensorflow_model_optimization``.

    Raises `MissingRequirementError` where it is not installed.
    """
    import_tensorflow()
    package = "tensorflow_model_optimization.python.core.quantization.keras"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it compares versions in a deprecated way
            for module in ("quantize", "quantize_annotate", "quantize_config", "quantizers"):
                importlib.import_module(f"{package}.{module}")
            return importlib.import_module(package)
    except ImportError as error:
        raise MissingRequirementError(
            f"tensorflow-model-optimization cannot be imported ({error}); install lesiontk with "
            "its dependencies (`pip install lesiontk`)."
        ) from error
