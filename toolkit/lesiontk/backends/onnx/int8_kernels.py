"""Whether ONNX Runtime's fast int8 kernels overflow on this CPU; also for a bundle's runner."""

from __future__ import annotations

import base64
import functools
import zlib
from typing import Any

EXACT = "session.x64quantprecision"
"""The session option for kernels that do not overflow. They take up to three times as long, on
some CPUs also where the fast ones are exact."""
PROBE = (
    "eNrjYLdaw8ylwcVYwcVYzMVYxcVYDmaUcTGWALlCjJVK3IE+mXmpiUXO+XllQqwFRflJqVoTmDgEgJCRg1GA2Ymx"
    "3KuBqX6EAy1uAUYnxmIvFgaGBnstDgEmJ8YqL0YGIAsYQGUgFlhBiRfL2TeKrlHSwBAXEuMS4WASEuBi4mAEYhDN"
    "AsJJQMlKXJJOLFwMArwADwaaGw=="
)
"""An ONNX graph, deflated: a convolution (QLinearConv) of 16 channels, uint8 [1, 16, 4, 4], by
weights of 127, int8; for bytes of 255 every output is `EXPECTED`."""
EXPECTED = 200


@functools.lru_cache(maxsize=None)
def kernels_overflow(onnxruntime: Any) -> bool:
    """Return whether a layer with the largest products has another result than it should.

    On x86 CPUs without VNNI two products of 8 bits are added in 16 bits, where they saturate.
    """
    import numpy as np

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    model = zlib.decompress(base64.b64decode(PROBE))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {"x": np.full((1, 16, 4, 4), 255, np.uint8)})[0]
    return bool((outputs != EXPECTED).any())


def exact_entries(onnxruntime: Any) -> dict[str, str]:
    """Return the session options with which int8 is exact on this CPU, and as fast as it can be.

    `onnxruntime` is the imported module.
    """
    return {EXACT: "1" if kernels_overflow(onnxruntime) else "0"}
