"""Which layers stay in higher precision: the fewest that meet a condition. Plain Python.

Layers are ranked by how much quantizing each alone changes the answers (per-layer sensitivity, as
in Wu et al., Integer Quantization for Deep Learning Inference, arXiv:2004.09602, section 6.1).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

Meets = Callable[[frozenset[str]], bool]
"""Of the layers that stay in higher precision: whether the engine is then good enough."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search came to: the layers `kept`, or None where no set that was tried is enough.

    `untried` is what it would try next; None where it came to its end.
    """

    kept: frozenset[str] | None
    untried: frozenset[str] | None = None


def find_fewest(ranked: Sequence[str], meets: Meets, budget: int) -> SearchResult:
    """Return the layers to keep in higher precision, as few as `budget` trials find.

    `ranked` has all layers, the most sensitive first. Where the budget is used up, the fewest
    that were enough so far are kept.
    """
    search = _propose(ranked)
    proposed, kept = next(search), None
    for _ in range(budget):
        enough = meets(proposed)
        kept = proposed if enough else kept  # what is enough is smaller each time
        try:
            proposed = search.send(enough)
        except StopIteration:
            return SearchResult(kept)
    return SearchResult(kept, proposed)


def _propose(ranked: Sequence[str]) -> Generator[frozenset[str], bool, None]:
    """Yield sets of layers to keep, each once; is sent whether that is enough.

    None are kept if that is enough. Else the number taken from the front is doubled until it is
    and then halved into, and each of those, the least sensitive first, is left out again where the
    others are enough. That is at most ``2 log2 n + kept + 2`` trials; none of the layers found can
    be left out, though another set, of layers that rank lower, may be smaller.
    """
    if (yield frozenset()):
        return
    low, high = 0, 1
    while not (yield frozenset(ranked[:high])):
        if high == len(ranked):
            return
        low, high = high, min(2 * high, len(ranked))
    while high - low > 1:
        middle = (low + high) // 2
        if (yield frozenset(ranked[:middle])):
            high = middle
        else:
            low = middle
    kept = frozenset(ranked[:high])
    for layer in reversed(ranked[: high - 1]):  # without the last the front is not enough
        if (yield kept - {layer}):
            kept -= {layer}
