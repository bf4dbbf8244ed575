"""What a conformance suite runs over."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from lesiontk.models import ARCHITECTURES

TOO_DEEP = ("efficientnet_lite1", "efficientnet_lite2")
"""Random features of so many depthwise layers blow any difference up; Lite0 stands for them."""


def each_architecture(but: Collection[str] = (), *, engines: bool = False) -> list[Any]:
    """Return a case for every registered architecture.

    The toolkit's own are slow but for the first; a plugin's are if `engines` are made of them.
    """
    own = [name for name, a in ARCHITECTURES.items() if a.body.__module__.startswith("lesiontk.")]
    return [
        pytest.param(
            name,
            id=name,
            marks=pytest.mark.slow if name in own[1:] or (engines and name != own[0]) else (),
        )
        for name in ARCHITECTURES
        if name not in but
    ]
