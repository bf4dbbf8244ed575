"""Keras networks in PyTorch: same layers, same outputs.

The layers of networks that lesiontk trains and prunes are supported; an error names any other.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import h5py
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

WEIGHTS, MEMBER = "model.weights.h5", "lesiontk.json"
STORED_AS = {
    "Conv2D": "conv2d",
    "DepthwiseConv2D": "depthwise_conv2d",
    "Dense": "dense",
    "BatchNormalization": "batch_normalization",
}
"""Layer class -> its name in a Keras file; the second of a kind ends in _1."""


class KerasNetwork(nn.Module):
    """The logits of a Keras classifier, uint8 or float [N, 3, S, S] in 0..255 -> [N, C].

    Raises `click.ClickException` for an unsupported layer.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        with zipfile.ZipFile(path) as archive:
            self.layers = json.loads(archive.read("config.json"))["config"]["layers"]
            self.spec = json.loads(archive.read(MEMBER))
            stored = h5py.File(io.BytesIO(archive.read(WEIGHTS)))
        if self.layers[-1]["class_name"] != "Softmax":
            raise click.ClickException(f"{path.name}: expected Softmax as the last layer.")
        self.size = int(self.layers[0]["config"]["batch_input_shape"][1])
        self.places: dict[str, str] = {}
        counts: dict[str, int] = {}
        for layer in self.layers:
            kind, name = layer["class_name"], layer["name"]
            check_layer(kind, name, layer["config"])
            if kind == "Rescaling":
                offset = torch.tensor(layer["config"]["offset"], dtype=torch.float32)
                self.register_buffer(f"{name}:0", offset.reshape(1, -1, 1, 1))
            if kind in STORED_AS:
                number = counts.setdefault(kind, 0)
                counts[kind] += 1
                place = f"layers/{STORED_AS[kind]}" + (f"_{number}" if number else "") + "/vars"
                self.places[name] = place
                for i, value in enumerate(torch_from_keras(kind, stored[place])):
                    trained = not (kind == "BatchNormalization" and i >= 2)
                    if trained:
                        self.register_parameter(f"{name}:{i}", nn.Parameter(value))
                    else:
                        self.register_buffer(f"{name}:{i}", value)
        by_name = {layer["name"]: layer for layer in self.layers}
        layer = self.layers[-2]
        while (layer := by_name[layer["inbound_nodes"][0][0][0]])["class_name"] == "Dropout":
            pass
        self.pooled: str = layer["name"]
        """The layer whose output the last one reads, before dropout."""
        self.momentum: float | None = None
        """Overrides that of BatchNormalization while statistics are measured."""
        self.frozen = False
        """Whether BatchNormalization keeps its statistics in training, as untrained layers do."""
        self.skipped: dict[str, tuple[int, float]] = {}
        """The additions of stochastic depth: which input is skipped, and for what share."""

    def skip_blocks(self, rate: float) -> None:
        """Skip residual blocks at random in training, as ``train.stochastic_depth`` of a recipe.

        The share rises linearly with depth to `rate`. Raises `click.ClickException` for a network
        without a residual block.
        """
        if not rate:
            return
        blocks = list_blocks(self.layers)
        if not blocks:
            raise click.ClickException(
                f"stochastic_depth is {rate:g}, but the network has no residual block whose "
                "shortcut is its input; expected 0."
            )
        self.skipped = {
            name: (branch, rate * (n + 1) / len(blocks))
            for n, (name, branch) in enumerate(blocks.items())
        }

    def layer_weights(self) -> dict[str, list[nn.Parameter]]:
        """Return layer -> its trained weights, for the layers with any, in the network's order."""
        owned = {
            name: [
                parameter
                for i in range(4)
                if isinstance(parameter := getattr(self, f"{name}:{i}", None), nn.Parameter)
            ]
            for name in self.places
        }
        return {name: parameters for name, parameters in owned.items() if parameters}

    def forward(self, images: Tensor) -> Tensor:
        return self.with_features(images)[0]

    def with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits [N, C] and the pooled features before dropout, [N, P]."""
        values: dict[str, Tensor] = {}
        for layer in self.layers[:-1]:
            inputs = [values[node[0]] for node in (layer["inbound_nodes"] or [[]])[0]] or [images]
            weights = [getattr(self, f"{layer['name']}:{i}", None) for i in range(4)]
            apply = LAYERS[layer["class_name"]]
            values[layer["name"]] = apply(self, layer["config"], inputs, weights)
        return values[self.layers[-2]["name"]].float(), values[self.pooled].float()

    def write(self, source: Path, out: Path, trained_by: dict[str, Any]) -> None:
        """Write the file `source` with these weights and the record of their training."""
        with zipfile.ZipFile(source) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        content = io.BytesIO(members[WEIGHTS])
        with h5py.File(content, "r+") as stored:
            for layer in self.layers:
                if place := self.places.get(layer["name"]):
                    for i, name in enumerate(sorted(stored[place], key=int)):
                        value = getattr(self, f"{layer['name']}:{i}").detach().float().cpu()
                        stored[place][name][...] = keras_from_torch(layer["class_name"], value)
        members.pop(MEMBER)
        with zipfile.ZipFile(out, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, content.getvalue() if name == WEIGHTS else data)
            told = {**self.spec["extra"], "trained_by": trained_by}
            archive.writestr(MEMBER, json.dumps({**self.spec, "extra": told}))


def list_blocks(layers: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return the additions of a tensor to what was computed from it alone: name -> which of the two
    inputs is the computed one, in the network's order."""
    sources = {
        layer["name"]: [node[0] for node in (layer["inbound_nodes"] or [[]])[0]] for layer in layers
    }

    def computed_from(name: str) -> set[str]:
        waiting, seen = list(sources[name]), set()
        while waiting:
            if (current := waiting.pop()) not in seen:
                seen.add(current)
                waiting += sources[current]
        return seen

    blocks = {}
    for layer in layers:
        inputs = sources[layer["name"]]
        if layer["class_name"] == "Add" and len(inputs) == 2:
            for branch in (0, 1):
                if inputs[1 - branch] in computed_from(inputs[branch]):
                    blocks[layer["name"]] = branch
    return blocks


def check_layer(kind: str, name: str, config: dict[str, Any]) -> None:
    """Raise `click.ClickException` for an unsupported layer or option."""
    if kind == "BatchNormalization" and not config["scale"]:
        raise click.ClickException(f"layer {name} has no gamma; expected one.")
    if kind == "MaxPooling2D" and config["padding"] != "valid":
        raise click.ClickException(f"layer {name} pads; expected pooling with padding 'valid'.")
    if kind not in (*LAYERS, "Softmax"):
        raise click.ClickException(
            f"layer {name} is a {kind}; expected one of {', '.join(LAYERS)}."
        )
    for option, known in KNOWN.items():
        if option in config and config[option] not in known:
            raise click.ClickException(
                f"layer {name} has {option} {config[option]}; expected one of {known}."
            )


KNOWN: dict[str, tuple[Any, ...]] = {
    "activation": ("linear", "relu", "relu6"),
    "dilation_rate": ([1, 1],),
    "depth_multiplier": (1,),
    "negative_slope": (0.0, None),
    "threshold": (0.0, None),
    "center": (True,),
}
"""Supported values of a layer's options; other options are implemented or have no effect."""


def torch_from_keras(kind: str, stored: Any) -> list[Tensor]:
    """Return a layer's weights in PyTorch's order of axes."""
    values = [torch.from_numpy(np.float32(stored[name])) for name in sorted(stored, key=int)]
    if kind in ORDERS:
        values[0] = values[0].permute(ORDERS[kind]).contiguous()
        if kind == "DepthwiseConv2D":
            values[0] = values[0].flatten(0, 1).unsqueeze(1)
    return values


def keras_from_torch(kind: str, value: Tensor) -> Any:
    """Return one weight in Keras' order of axes."""
    if value.ndim == 1:
        return value.numpy()
    if kind == "DepthwiseConv2D":  # [C * M, 1, h, w]; M is 1 in what lesiontk makes
        value = value.transpose(0, 1)
        return value.permute(2, 3, 1, 0).numpy()
    order = ORDERS[kind]
    return value.permute([order.index(axis) for axis in range(value.ndim)]).numpy()


ORDERS = {"Conv2D": (3, 2, 0, 1), "DepthwiseConv2D": (2, 3, 0, 1), "Dense": (1, 0)}

Weights = Sequence[Tensor | None]
Layer = Callable[[KerasNetwork, dict[str, Any], list[Tensor], Weights], Tensor]


def pad_same(value: Tensor, kernel: Sequence[int], strides: Sequence[int]) -> Tensor:
    """Return the input padded as in TensorFlow: of an odd margin the larger part is right and
    below."""
    margins = []
    for n, k, s in zip(value.shape[:1:-1], kernel[::-1], strides[::-1], strict=True):
        total = max((math.ceil(n / s) - 1) * s + k - n, 0)
        margins += [total // 2, total - total // 2]
    return functional.pad(value, margins) if any(margins) else value


def activate(value: Tensor, name: str) -> Tensor:
    return {"linear": lambda v: v, "relu": functional.relu, "relu6": functional.relu6}[name](value)


def convolve(_: KerasNetwork, config: dict[str, Any], inputs: list[Tensor], w: Weights) -> Tensor:
    value, groups = inputs[0], config["groups"]
    if "depth_multiplier" in config:
        groups = value.shape[1]
    if config["padding"] == "same":
        value = pad_same(value, config["kernel_size"], config["strides"])
    value = functional.conv2d(value, w[0], w[1], config["strides"], groups=groups)
    return activate(value, config["activation"])


def normalize(
    net: KerasNetwork, config: dict[str, Any], inputs: list[Tensor], w: Weights
) -> Tensor:
    momentum = 1 - config["momentum"] if net.momentum is None else net.momentum
    learns = net.training and not net.frozen
    return functional.batch_norm(
        inputs[0], w[2], w[3], w[0], w[1], learns, momentum, config["epsilon"]
    )


def rescale(_: KerasNetwork, config: dict[str, Any], inputs: list[Tensor], w: Weights) -> Tensor:
    return inputs[0] * config["scale"] + w[0]


def pool_max(_: KerasNetwork, config: dict[str, Any], inputs: list[Tensor], w: Weights) -> Tensor:
    return functional.max_pool2d(inputs[0], config["pool_size"], config["strides"])


def pad_zero(_: KerasNetwork, config: dict[str, Any], inputs: list[Tensor], w: Weights) -> Tensor:
    (top, bottom), (left, right) = config["padding"]
    return functional.pad(inputs[0], (left, right, top, bottom))


def connect(_: KerasNetwork, config: dict[str, Any], inputs: list[Tensor], w: Weights) -> Tensor:
    return activate(functional.linear(inputs[0], w[0], w[1]), config["activation"])


def add(net: KerasNetwork, config: dict[str, Any], inputs: list[Tensor], w: Weights) -> Tensor:
    if net.training and config["name"] in net.skipped:
        branch, rate = net.skipped[config["name"]]
        value = inputs[branch]
        kept = torch.rand(len(value), 1, 1, 1, device=value.device) >= rate
        return inputs[1 - branch] + value * (kept / (1 - rate)).to(value.dtype)
    return sum(inputs[1:], inputs[0])


LAYERS: dict[str, Layer] = {
    "InputLayer": lambda net, config, inputs, w: inputs[0],
    "Rescaling": rescale,
    "Conv2D": convolve,
    "DepthwiseConv2D": convolve,
    "BatchNormalization": normalize,
    "Activation": lambda net, config, inputs, w: activate(inputs[0], config["activation"]),
    "ReLU": lambda net, config, inputs, w: (
        functional.relu(inputs[0])
        if config["max_value"] is None
        else inputs[0].clamp(0, config["max_value"])
    ),
    "MaxPooling2D": pool_max,
    "ZeroPadding2D": pad_zero,
    "GlobalAveragePooling2D": lambda net, config, inputs, w: inputs[0].mean((2, 3)),
    "Dense": connect,
    "Dropout": lambda net, config, inputs, w: functional.dropout(
        inputs[0], config["rate"], net.training
    ),
    "Add": add,
}
