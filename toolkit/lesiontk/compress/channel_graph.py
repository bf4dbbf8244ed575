"""The dependency graph of a network's channels: coupled channels are removed together.

Each output channel of a convolution or dense layer is a slot. Channel-wise layers (normalization,
activation, pooling, padding) propagate slots; an addition couples the slots it joins; a
concatenation concatenates them; Flatten repeats each at every position. Coupled slots form one
channel of the network, which is removed as a whole. Plain Python and NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lesiontk.compress.layers import CHANNELWISE, JOINING, PRODUCING, Layer, find_readers
from lesiontk.errors import DataError

Slots = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ChannelGraph:
    """Every layer's channels, as indices of network channels.

    `outputs` maps a layer to the channels along its last axis, `inputs` to those of each tensor it
    reads. `fixed` are channels that cannot be removed: those of the image, of the classes, and of
    layers that mix channels in a way that a narrower layer cannot.
    """

    layers: tuple[Layer, ...]
    outputs: Mapping[str, Slots]
    inputs: Mapping[str, tuple[Slots, ...]]
    fixed: frozenset[int]

    def producers(self) -> dict[int, tuple[tuple[str, int], ...]]:
        """Return removable channel -> the (layer, output index) pairs that produce it."""
        found: dict[int, list[tuple[str, int]]] = {}
        for layer in self.layers:
            if layer.kind not in PRODUCING:
                continue
            for index, channel in enumerate(self.outputs[layer.name]):
                if int(channel) not in self.fixed:
                    found.setdefault(int(channel), []).append((layer.name, index))
        return {channel: tuple(pairs) for channel, pairs in found.items()}

    def families(self) -> tuple[tuple[int, ...], ...]:
        """Return removable channels in families: those that the same layers produce.

        The width of these layers is the number of channels that stay.
        """
        found: dict[tuple[str, ...], list[int]] = {}
        for channel, pairs in self.producers().items():
            found.setdefault(tuple(name for name, _ in pairs), []).append(channel)
        return tuple(tuple(channels) for channels in found.values())

    def keep_outputs(self, layer: str, removed: frozenset[int]) -> NDArray[np.int64]:
        """Return the indices of a layer's last axis that stay."""
        return np.flatnonzero(self._stays(removed)[self.outputs[layer]])

    def keep_inputs(self, layer: str, removed: frozenset[int]) -> tuple[NDArray[np.int64], ...]:
        """Return the indices that stay of each tensor that a layer reads."""
        stays = self._stays(removed)
        return tuple(np.flatnonzero(stays[slots]) for slots in self.inputs[layer])

    def narrow(self, removed: frozenset[int]) -> tuple[Layer, ...]:
        """Return the layers without the removed channels.

        Raises `DataError` if a fixed channel is among them, or a layer would lose its last.
        """
        not_removable = removed & self.fixed
        if not_removable:
            raise DataError(f"channels {sorted(not_removable)[:5]} are fixed; expected others.")
        stays, narrowed = self._stays(removed), []
        for layer in self.layers:
            kept = int(stays[self.outputs[layer.name]].sum())
            if kept == 0:
                raise DataError(f"layer {layer.name!r} would lose its last channel.")
            groups = kept // layer.multiplier if layer.kind == "DepthwiseConv2D" else layer.groups
            narrowed.append(replace(layer, shape=(*layer.shape[:-1], kept), groups=groups))
        return tuple(narrowed)

    def _stays(self, removed: frozenset[int]) -> NDArray[np.bool_]:
        """Return for each channel, by its number, whether it stays."""
        stays = np.ones(1 + max(int(slots.max()) for slots in self.outputs.values()), np.bool_)
        stays[list(removed)] = False
        return stays


def derive_channels(layers: Sequence[Layer]) -> ChannelGraph:
    """Return the channel graph of a network, its layers in an order in which they can run.

    Raises `DataError` with the layer's name if its channels cannot be derived.
    """
    build = _Derivation()
    for layer in layers:
        build.add(layer)
    readers = find_readers(layers)
    for layer in layers:
        if layer.name not in readers:  # an output
            build.fix(build.slots[layer.name])
    roots = np.array([build.root(slot) for slot in range(len(build.parents))], np.int64)
    return ChannelGraph(
        tuple(layers),
        {name: roots[slots] for name, slots in build.slots.items()},
        {layer.name: tuple(roots[build.slots[i]] for i in layer.inputs) for layer in layers},
        frozenset(int(build.root(slot)) for slot in build.fixed),
    )


class _Derivation:
    """The slots so far and their coupling (a union-find forest)."""

    def __init__(self) -> None:
        self.parents: list[int] = []
        self.slots: dict[str, Slots] = {}
        self.fixed: set[int] = set()
        self._shapes: dict[str, tuple[int, ...]] = {}

    def add(self, layer: Layer) -> None:
        """Assign slots to the layer's output."""
        inputs = [self.slots[name] for name in layer.inputs]
        slots = self._derive(layer, inputs)
        if len(slots) != layer.channels:
            raise DataError(
                f"layer {layer.name!r} ({layer.kind}) has {layer.channels} channels; expected "
                f"{len(slots)} from its inputs."
            )
        self.slots[layer.name] = self.fix(slots) if layer.mixes_channels else slots
        self._shapes[layer.name] = layer.shape

    def _derive(self, layer: Layer, inputs: list[Slots]) -> Slots:
        if layer.kind == "InputLayer":
            return self.fix(self._new(layer.channels))
        if layer.kind in PRODUCING:
            if layer.groups > 1:  # all groups would need the same width
                self.fix(inputs[0])
                return self.fix(self._new(layer.channels))
            return self._new(layer.channels)
        if layer.kind == "DepthwiseConv2D":
            return np.repeat(inputs[0], layer.multiplier)
        if layer.kind in (*CHANNELWISE, "Softmax"):
            return inputs[0]
        if layer.kind in JOINING:
            return self._join(layer, inputs)
        if layer.kind == "Concatenate":
            return np.concatenate(inputs)
        return self._reshape(layer, inputs[0])

    def _join(self, layer: Layer, inputs: list[Slots]) -> Slots:
        widest = max(inputs, key=len)
        for slots in inputs:
            if len(slots) == len(widest):
                for a, b in zip(widest, slots, strict=True):
                    self._couple(int(a), int(b))
            elif len(slots) == 1:  # broadcast to all channels
                self.fix(slots)
            else:
                widths = [len(entry) for entry in inputs]
                raise DataError(f"layer {layer.name!r} ({layer.kind}) joins {widths} channels.")
        return widest

    def _reshape(self, layer: Layer, slots: Slots) -> Slots:
        """Return the slots of a Flatten, or of a Reshape that keeps the channels last or
        flattens."""
        before = self._shapes[layer.inputs[0]]
        if layer.channels == len(slots):
            return slots
        if len(layer.shape) == 1 and layer.channels % len(slots) == 0:
            positions = int(np.prod(before[:-1]))
            return np.tile(slots, positions)
        raise DataError(
            f"layer {layer.name!r} ({layer.kind}) reshapes {list(before)} to {list(layer.shape)}; "
            "expected the channels to stay the last axis, or to be flattened."
        )

    def fix(self, slots: Slots) -> Slots:
        """Mark slots as fixed, and return them."""
        self.fixed.update(int(slot) for slot in slots)
        return slots

    def _new(self, count: int) -> Slots:
        first = len(self.parents)
        self.parents += range(first, first + count)
        return np.arange(first, first + count, dtype=np.int64)

    def root(self, slot: int) -> int:
        """Return the representative of a slot's coupled set."""
        while self.parents[slot] != slot:
            self.parents[slot] = self.parents[self.parents[slot]]
            slot = self.parents[slot]
        return slot

    def _couple(self, a: int, b: int) -> None:
        low, high = sorted((self.root(a), self.root(b)))
        self.parents[high] = low
