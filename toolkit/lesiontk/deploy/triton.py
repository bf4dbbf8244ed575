"""Target ``triton``: a model repository for Triton Inference Server, and its client."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from lesiontk.deploy.runner.triton_runtime import ServedModel
from lesiontk.deploy.target import ONNX, TRITON, BundleTarget, Contents, Runtime
from lesiontk.records import EngineSpec

REPOSITORY, LABELS = "model_repository", "labels.txt"
IMAGE = "nvcr.io/nvidia/tritonserver:25.08-py3"
MAX_BATCH = 8
"""Requests that the server may join, of a graph with a dynamic batch."""
QUEUE_DELAY_US = 1000
PRECISION_MODES = {"int8": "INT8", "float16": "FP16", "float32": "FP32"}
"""Precision -> ``precision_mode`` of the server's ONNX Runtime with TensorRT."""
TYPES = {"UINT8": "TYPE_UINT8", "FLOAT": "TYPE_FP32"}


class Triton(BundleTarget):
    """Triton Inference Server with ONNX Runtime; graphs for TensorRT run in TensorRT there."""

    # Without tensorrt:mixed: the server has one precision, and mixed graphs need two.
    engines: ClassVar[tuple[str, ...]] = (
        "tensorrt:int8",
        "tensorrt:float16",
        "tensorrt:float32",
        "onnx:int8",
        "onnx:mixed",
        "onnx:float16",
        "onnx:float32",
    )

    def runtimes(self, spec: EngineSpec) -> tuple[Runtime, ...]:
        return (TRITON, ONNX)

    def place(self, file: str, spec: EngineSpec) -> str:
        return f"{REPOSITORY}/{name_model(spec)}/1/model.onnx"

    def add_files(self, folder: Path, engine: Path, spec: EngineSpec) -> Contents:
        import onnx

        if spec.backend == "tensorrt":
            from lesiontk.backends.tensorrt.check import require_model

            require_model(engine)
        graph = onnx.load(engine).graph
        model = name_model(spec)
        home = folder / REPOSITORY / model
        (home / "config.pbtxt").write_text(render_config(model, graph, spec))
        (home / LABELS).write_text("".join(f"{label}\n" for label in spec.labels))
        return Contents(
            "The folder `model_repository` is for Triton Inference Server. With Docker:\n\n"
            "    docker run --rm --publish 127.0.0.1:8000:8000 \\\n"
            "      --volume $PWD/model_repository:/models:ro \\\n"
            f"      {IMAGE} tritonserver --model-repository=/models\n\n"
            "with `--gpus all` on a server with a GPU, or `--runtime nvidia` and the image "
            f"{IMAGE}-igpu on a Jetson. No Triton server was run in the tests of lesiontk.\n\n"
            f"The model `{model}` takes `image`, uint8 RGB {list(spec.input_shape)}, cropped and "
            "resized as `crop.py` does; normalization is inside. `run.py` is a client that does "
            "so: it prepares images, asks the server at `LESIONTK_TRITON_URL` (default "
            "http://127.0.0.1:8000) by the KServe protocol, applies input checks and threshold, "
            "and tests whether the server's outputs are those expected. It needs NumPy and Pillow:"
            "\n\n    pip install --require-hashes -r requirements.txt\n\n"
            "`--runtime onnx` runs the same file without a server (`pip install onnxruntime`).",
            bundle={"triton": asdict(ServedModel(model, [e.name for e in graph.output]))},
            facts={"model": model},
        )


def name_model(spec: EngineSpec) -> str:
    """Return the name of an engine in the repository."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", f"{spec.recipe}_{spec.precision}")


def render_config(model: str, graph: Any, spec: EngineSpec) -> str:
    """Return ``config.pbtxt`` for an ONNX graph; its outputs after the first are for input checks.

    The server adds the batch dimension itself where there is one.
    """
    batch = not graph.input[0].type.tensor_type.shape.dim[0].HasField("dim_value")
    inputs = [_describe_tensor(entry, batch) for entry in graph.input]
    outputs = [_describe_tensor(entry, batch) for entry in graph.output]
    outputs[0] += f'\n    label_filename: "{LABELS}"'
    parts = [
        f'name: "{model}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {MAX_BATCH if batch else 0}",
        _list("input", inputs),
        _list("output", outputs),
    ]
    if batch:
        parts.append(f"dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_DELAY_US} }}")
    if spec.backend == "tensorrt":
        mode = PRECISION_MODES[spec.precision]
        parts.append(
            "optimization {\n  execution_accelerators {\n    gpu_execution_accelerator [\n      {\n"
            '        name: "tensorrt"\n'
            f'        parameters {{ key: "precision_mode" value: "{mode}" }}\n'
            "      }\n    ]\n  }\n}"
        )
    return "\n".join(parts) + "\n"


def _describe_tensor(entry: Any, batch: bool) -> str:
    from onnx import TensorProto

    tensor = entry.type.tensor_type
    kind = TYPES[TensorProto.DataType.Name(tensor.elem_type)]
    dims = ", ".join(str(dim.dim_value) for dim in tensor.shape.dim[1 if batch else 0 :])
    return f'    name: "{entry.name}"\n    data_type: {kind}\n    dims: [ {dims} ]'


def _list(key: str, entries: Sequence[str]) -> str:
    return f"{key} [\n" + ",\n".join(f"  {{\n{entry}\n  }}" for entry in entries) + "\n]"
