"""Which layers of a graph the Deep Learning Accelerator (DLA) of a Jetson could compute."""

from __future__ import annotations

from typing import Any, TypedDict

from lesiontk.backends.tensorrt.on_device import (
    FLAGS,
    make_builder,
    make_logger,
    parse_graph,
)


class DlaLayers(TypedDict):
    """The number of DLA cores, the layers that could run there, and those that need the GPU."""

    cores: int
    layers: list[str]
    gpu_layers: list[str]


def list_dla_layers(trt: Any, content: bytes, precision: str) -> DlaLayers | None:
    """Return the DLA's cores, the layers that could run there and those that need the GPU.

    None for a device without DLA. The answer is TensorRT's for an ONNX file's bytes; the engine is
    built for the GPU, whatever it is. Where a version has precision flags, a network for the DLA is
    weakly typed and has them.
    """
    logger = make_logger(trt)
    builder = make_builder(trt, logger)
    cores = int(getattr(builder, "num_DLA_cores", 0))  # TensorRT for RTX has no DLA
    if not cores:
        return None
    names = dict.fromkeys((*FLAGS[precision], "FP16"))
    flags = [trt.BuilderFlag.__members__.get(name) for name in names]
    weak = None not in flags
    network, parser = parse_graph(trt, builder, logger, content, strong=not weak)
    config = builder.create_builder_config()
    for flag in flags if weak else ():
        config.set_flag(flag)
    config.default_device_type = trt.DeviceType.DLA
    found: DlaLayers = {"cores": cores, "layers": [], "gpu_layers": []}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        found["layers" if config.can_run_on_DLA(layer) else "gpu_layers"].append(layer.name)
    del parser
    return found
