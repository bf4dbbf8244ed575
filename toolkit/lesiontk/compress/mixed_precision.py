"""Which layers stay in higher precision: the fewest that meet a condition. Plain Python.

Layers are ranked by how much quantizing each alone changes the answers (per-layer sensitivity, as
in Wu et al., Integer Quantization for Deep Learning Inference, arXiv:2004.09602, section 6.1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Meets = Callable[[frozenset[str]], bool]
"""Of the layers that stay in higher precision: whether the engine is then good enough."""


def find_fewest(ranked: Sequence[str], meets: Meets) -> frozenset[str]:
    """Return the layers to keep in higher precision, as few as the search finds.

    `ranked` has all layers, the most sensitive first. None are kept if that is enough. Else the
    number taken from the front is doubled until it is and then halved into, and each of those,
    the least sensitive first, is left out again where the others are enough. That is at most
    ``2 log2 n + kept + 2`` trials; none of the layers found can be left out, though another set,
    of layers that rank lower, may be smaller.
    Raises `ValueError` if not even all of them are enough.
    """
    if meets(frozenset()):
        return frozenset()
    low, high = 0, 1
    while not meets(frozenset(ranked[:high])):
        if high == len(ranked):
            raise ValueError("not even all layers in higher precision are enough")
        low, high = high, min(2 * high, len(ranked))
    while high - low > 1:
        middle = (low + high) // 2
        if meets(frozenset(ranked[:middle])):
            high = middle
        else:
            low = middle
    kept = list(ranked[:high])
    for layer in reversed(ranked[: high - 1]):  # without the last the front is not enough
        fewer = frozenset(kept) - {layer}
        if meets(fewer):
            kept.remove(layer)
    return frozenset(kept)
