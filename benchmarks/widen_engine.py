"""Restore a trained network from its published int8 engine, to compress it further.

    python benchmarks/widen_engine.py RECIPE OUT.keras

The float32 VGG16 is too large to be published; its engine's kernels are not. Each rounded kernel
and bias of an engine becomes float32 in a network of the recipe's architecture, which must be
sequential and without BatchNormalization. The result is the trained network with weights rounded to
8 bits, and nothing else rounded. Import it into a workspace with ``lesiontk import OUT.keras
--recipe RECIPE --data HAM10000``. If a compressed engine has replaced
``engines/RECIPE/onnx_int8.onnx``, the original is in the git history:

    git log --oneline -- benchmarks/engines/vgg16_7class/onnx_int8.onnx
    git show COMMIT:benchmarks/engines/vgg16_7class/onnx_int8.onnx > whole.onnx
    python benchmarks/widen_engine.py vgg16_7class OUT.keras --engine whole.onnx
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from lesiontk.backends import open_engine
from lesiontk.backends.keras.backend import save_model
from lesiontk.evaluate.golden_images import golden_images
from lesiontk.models import ARCHITECTURES
from lesiontk.models.architecture import build_model
from lesiontk.recipe import read_recipe

ENGINES = Path(__file__).parent / "engines"


@click.command()
@click.argument("recipe")
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--image-size", type=int, help="Default: the engine's.")
@click.option(
    "--engine",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Default: the published one.",
)
def cli(recipe: str, out: Path, image_size: int | None, engine: Path | None) -> None:
    """Write the network of RECIPE's published int8 ONNX engine to OUT."""
    path = engine or ENGINES / recipe / "onnx_int8.onnx"
    described = read_recipe(recipe)
    with open_engine(path) as opened:
        spec = replace(opened.spec, backend="keras", precision="float32")
        size, classes = spec.preprocessing.image_size, len(spec.labels)
        pictures = golden_images(size)
        expected = opened.predict(pictures)
    model = build_model(
        ARCHITECTURES.get(described.model.architecture), image_size=size, classes=classes
    )
    layers = [layer for layer in model.layers if hasattr(layer, "kernel")]
    kernels = read_kernels(path)
    if len(layers) != len(kernels):
        raise click.ClickException(
            f"{path.name} has {len(kernels)} kernels and the network {len(layers)} layers for them."
        )
    for layer, weights in zip(layers, kernels, strict=True):
        layer.set_weights(weights)
    outputs = model.predict(pictures.astype(np.float32), verbose=0)
    if image_size is not None:
        kept = model.get_weights()
        model = build_model(
            ARCHITECTURES.get(described.model.architecture), image_size=image_size, classes=classes
        )
        model.set_weights(kept)
        resized = replace(spec.preprocessing, image_size=image_size)
        spec = replace(spec, preprocessing=resized)
    save_model(model, spec, out)  # with its split, so that it is compressed on with no other
    click.echo(
        f"{out}: on {len(pictures)} images the engine's largest probability differs by at most "
        f"{np.abs(outputs - expected).max():.3f}"
    )


def read_kernels(path: Path) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Return kernel (as Keras has it) and bias of each convolution and dense layer, in order."""
    graph = onnx.load(str(path)).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    widened = {
        node.output[0]: widen(*(constants[name] for name in node.input))
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    }
    found = []
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            kernel, bias = widened[node.input[1]], widened[node.input[2]]
            found.append((kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel, bias))
    return found


def widen(
    rounded: NDArray[np.int32], scale: NDArray[np.float32], zero_point: NDArray[np.int32]
) -> NDArray[np.float32]:
    """Return the dequantized values; there may be a scale for each channel."""
    along = {4: (-1, 1, 1, 1), 2: (1, -1)}.get(rounded.ndim, (-1,)) if scale.ndim else ()
    centred = rounded.astype(np.int64) - zero_point.reshape(along)
    return np.asarray(centred * scale.reshape(along), np.float32)


if __name__ == "__main__":
    cli()
