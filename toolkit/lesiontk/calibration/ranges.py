"""Observing every tensor of a graph, whatever framework runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.calibration.observers import OBSERVERS, Observer
from lesiontk.errors import DataError

Ranges = dict[str, tuple[float, float]]


def collect_ranges(
    run: Callable[[NDArray[np.uint8]], Mapping[str, NDArray[Any]]],
    images: Iterable[NDArray[np.uint8]],
    observer: str,
) -> Ranges:
    """Return tensor name -> (low, high) over `images`, each uint8 [1, S, S, 3].

    `run` gives the float value of every tensor for one image. There is no default for images: a
    range measured on made-up data is worth nothing.
    """
    make = OBSERVERS.get(observer)
    observers: dict[str, Observer] = {}
    for image in images:
        for name, values in run(image).items():
            if name not in observers:
                observers[name] = make()
            observers[name].observe(values)
    if not observers:
        raise DataError("int8 needs calibration images; got none.")
    return {name: observer.range() for name, observer in observers.items()}
