"""Mixed precision: the fewest layers in higher precision that meet a condition. Plain Python.

Layers are ranked by how much quantizing each one alone changes the outputs (per-layer sensitivity,
as in Wu et al., Integer Quantization for Deep Learning Inference, arXiv:2004.09602, section 6.1).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

Meets = Callable[[frozenset[str]], bool]
"""Maps the layers in higher precision to whether the engine meets the condition."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The result of a search: the layers `kept`, or None if no set that was tried is sufficient.

    `untried` is the next set of an unfinished search; None if it is complete.
    """

    kept: frozenset[str] | None
    untried: frozenset[str] | None = None


def find_fewest(ranked: Sequence[str], meets: Meets, budget: int) -> SearchResult:
    """Return the layers to keep in higher precision, as few as `budget` trials find.

    `ranked` contains all layers, the most sensitive first. If the budget is exhausted, the result
    is the smallest sufficient set so far.
    """
    search = _propose(ranked)
    proposed, kept = next(search), None
    for _ in range(budget):
        sufficient = meets(proposed)
        kept = proposed if sufficient else kept  # each sufficient set is smaller than the last
        try:
            proposed = search.send(sufficient)
        except StopIteration:
            return SearchResult(kept)
    return SearchResult(kept, proposed)


def _propose(ranked: Sequence[str]) -> Generator[frozenset[str], bool, None]:
    """Yield sets of layers to keep, each once; receive by `send` whether the set is sufficient.

    The empty set comes first. Then the number of most sensitive layers is doubled until it is
    sufficient, and bisected; then each layer, the least sensitive first, is removed if the others
    are sufficient. That takes at most ``2 log2 n + kept + 2`` trials. No layer of the result can be
    removed, but a smaller set of lower-ranked layers may exist.
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
    for layer in reversed(ranked[: high - 1]):  # the set without the last layer is not sufficient
        if (yield kept - {layer}):
            kept -= {layer}
