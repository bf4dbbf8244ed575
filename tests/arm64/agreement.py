"""How far an int8 engine's answers on ARM64 may be from those on x86, and why they may at all.

Both multiply and add in integers, exactly. What differs is the rounding of what is rescaled in
float32: ONNX Runtime's additions and multiplications of quantized tensors round twice on x86
(multiply, then add) and once on ARM (fused multiply-add). Where the real value lies in the middle
between two steps, as near as float32 tells, one processor takes the upper step and the other the
lower. So it is at conv3_block4 of the published ResNet152V2, the first tensor that differs for the
picture that changed its label: 32.5000045 steps, 32 on x86 and 33 on ARM, at three of 32,768
places. A hundred layers later 132 of 1,296 pooled features differ, and one logit, by one step. On
x86 alone the same graph with its operators not fused differs by as much: 1 label and up to 0.023 of
probability on the same 50 pictures. TFLite's XNNPACK rescales alike on both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LOGIT_STEPS = {"tflite": 0, "onnx": 1}
"""By how many steps of its quantization each logit may differ, by runtime."""
ROUNDED = 1e-4
"""What the float softmax and the printed digits may add."""


def probability_limit(backend: str, logit_step: float) -> float:
    """Return by how much a probability may differ.

    Two logits that move by k steps against each other change their log-odds by 2k steps, and a
    probability by at most a quarter of that.
    """
    return LOGIT_STEPS[backend] * logit_step / 2 + ROUNDED


def explain_difference(here: Sequence[float], there: Sequence[float], limit: float) -> str | None:
    """Return why two answers are not the same up to `limit`, or None if they are.

    The label may differ where both find its two candidates nearer to each other than the limit.
    """
    mine, theirs = np.asarray(here), np.asarray(there)
    far = float(np.abs(mine - theirs).max())
    if far > limit:
        return f"a probability differs by {far:.4f}; expected at most {limit:.4f}"
    a, b = int(mine.argmax()), int(theirs.argmax())
    apart = max(mine[a] - mine[b], theirs[b] - theirs[a])
    if apart > limit:
        return f"another label, {apart:.4f} ahead; expected a tie within {limit:.4f}"
    return None
