"""Suppression of what native libraries print."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def suppress_native_output(*, shown: bool = False) -> Iterator[None]:
    """Suppress what native libraries print on standard error, unless they fail.

    TensorFlow logs a page about CPUs and missing GPUs before its own log level applies; LiteRT
    logs a line for every interpreter.
    """
    if shown:
        yield
        return
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        except BaseException:
            sink.seek(0)
            os.write(saved, sink.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
