"""The one place where TensorFlow and its Keras 2 are imported and configured."""

from __future__ import annotations

import logging
import os
from typing import Any

from lesiontk.errors import EnvironmentLacksError


def import_tensorflow() -> Any:
    """Return ``tensorflow``, quiet and set to Keras 2.

    tensorflow-model-optimization needs Keras 2, so the variable must stand before the first import.
    """
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import tensorflow
    except ImportError as error:
        raise EnvironmentLacksError(
            f"TensorFlow cannot be imported ({error}); install lesiontk with its dependencies "
            "(`pip install lesiontk`), or see `lesiontk doctor`."
        ) from error
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    return tensorflow


def import_keras() -> Any:
    """Return ``tf_keras``, the Keras 2 that every lesiontk model is made of."""
    import_tensorflow()
    import tf_keras

    return tf_keras
