"""Time and memory of quantizing a large network, compared with the tools alone.

    python benchmarks/tool_speed.py [--architecture resnet152v2] [--image-size 224] [--images 128]

The plain way is a user's script: TensorFlow's converter with a representative dataset, tf2onnx from
Keras, ONNX Runtime's quantize_static, each with its defaults for int8 and in a separate process,
because with ResNet152V2 at 224 px the first two need more than 24 GB in one. Ours is `lesiontk
quantize --int8`, which also verifies every engine and measures every layer. Both start from the
same trained model (random weights: the time does not depend on them), with as many images for
calibration, in turns. Writes results/tool_speed.md and .json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from lesiontk.backends.keras.backend import load_model
from lesiontk.data.images import open_images
from lesiontk.models import ARCHITECTURES
from lesiontk.models.architecture import build_model
from lesiontk.store import Store
from lesiontk.system.frameworks import import_onnxruntime, import_tensorflow
from lesiontk.system.machine import describe_machine

RESULTS = Path(__file__).parent / "results"
INTERVAL = 0.1
"""Seconds between two measurements of memory."""
LOOSE = (
    "verify.min_agreement_int8=0",
    "verify.max_mean_drift_int8=1",
    "verify.min_agreement_float=0",
)


@click.group(invoke_without_command=True)
@click.option("--architecture", default="resnet152v2", show_default=True)
@click.option("--image-size", default=224, show_default=True)
@click.option("--images", default=128, show_default=True, help="For calibration.")
@click.option("--rounds", default=2, show_default=True)
@click.pass_context
def cli(
    context: click.Context, architecture: str, image_size: int, images: int, rounds: int
) -> None:
    """Measure both ways in turns; write the table."""
    if context.invoked_subcommand:
        return
    with tempfile.TemporaryDirectory() as folder:
        workspace = prepare(Path(folder), architecture, image_size)
        runs: list[dict[str, Any]] = []
        for number in range(rounds):
            for way, processes in commands(Path(folder), workspace, images, number).items():
                runs.append({"way": way, **measure(processes)})
                click.echo(f"{way}: {runs[-1]}")
    document = {
        "architecture": architecture,
        "image_size": image_size,
        "images": images,
        "machine": describe_machine().to_document(),
        "runs": runs,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "tool_speed.json").write_text(json.dumps(document, indent=1) + "\n")
    (RESULTS / "tool_speed.md").write_text(render(document))


def prepare(folder: Path, architecture: str, image_size: int) -> Path:
    """Import a network into a workspace like `lesiontk import`, and return the workspace."""
    model = build_model(ARCHITECTURES.get(architecture), image_size=image_size, classes=7)
    model.save(str(folder / "model.keras"))
    workspace = folder / "workspace"
    # One image per lesion and some more: enough for calibration, split and verification.
    data = (
        "data.source=synthetic",
        "data.synthetic.lesions=700",
        f"data.synthetic.image_size={image_size}",
    )
    options = [word for item in data for word in ("--set", item)]
    call = [sys.executable, "-m", "lesiontk", "import", str(folder / "model.keras")]
    subprocess.run([*call, "--workspace", str(workspace), *options], check=True)
    return workspace


def commands(folder: Path, workspace: Path, images: int, number: int) -> dict[str, list[list[str]]]:
    """Return the processes of the two ways, each in a fresh copy so that nothing is reused."""
    copy = folder / f"workspace-{number}"
    subprocess.run(["cp", "-r", str(workspace), str(copy)], check=True)
    settings = [word for item in LOOSE for word in ("--set", item)]
    ours = [sys.executable, "-m", "lesiontk", "quantize", "--int8", "--workspace", str(copy)]
    plain = [sys.executable, str(Path(__file__)), "plain"]
    given = [str(workspace), str(images), str(folder / f"plain-{number}")]
    return {
        "plain": [[*plain, step, *given] for step in PLAIN],
        "lesiontk": [[*ours, "--set", f"calibration.images={images}", *settings]],
    }


def measure(processes: list[list[str]]) -> dict[str, float]:
    """Return the seconds of all processes, and the peak memory, in bytes, of the largest.

    A process counts with those that it starts.
    """
    started = time.perf_counter()
    peaks = []
    for command in processes:
        process = subprocess.Popen(command)
        while process.poll() is None:
            peaks.append(resident_memory(process.pid))
            time.sleep(INTERVAL)
        if process.returncode != 0:
            raise click.ClickException(f"{' '.join(command[:4])} failed")
    return {"seconds": time.perf_counter() - started, "peak_memory_bytes": max(peaks)}


def resident_memory(pid: int) -> int:
    """Return the resident bytes of a process and of its descendants."""
    memory: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        number = int(file.parent.name)
        children.setdefault(int(fields[1]), []).append(number)
        memory[number] = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    waiting, total = [pid], 0
    while waiting:
        current = waiting.pop()
        total += memory.get(current, 0)
        waiting += children.get(current, ())
    return total


@cli.command()
@click.argument("step")
@click.argument("workspace", type=click.Path(path_type=Path))
@click.argument("images", type=int)
@click.argument("out", type=click.Path(path_type=Path))
def plain(step: str, workspace: Path, images: int, out: Path) -> None:
    """Run one step of quantization as in the tools' documentation."""
    out.mkdir(exist_ok=True)
    artefact = Store(workspace).resolve("latest", "model")
    prepared = open_images(Store(workspace).parent(artefact, "images"))
    pixels = prepared.pixels[prepared.indices("train")[:images]].astype(np.float32)
    PLAIN[step](artefact.file("model.keras"), pixels, out)


def quantize_tflite(source: Path, pixels: NDArray[np.float32], out: Path) -> None:
    """TensorFlow's converter with a representative dataset."""
    tf = import_tensorflow()
    converter = tf.lite.TFLiteConverter.from_keras_model(load_model(source))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[np.newaxis]] for image in pixels)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    (out / "int8.tflite").write_bytes(converter.convert())


def export_onnx(source: Path, pixels: NDArray[np.float32], out: Path) -> None:
    """tf2onnx from Keras."""
    tf = import_tensorflow()
    import tf2onnx

    signature = [tf.TensorSpec([1, *pixels.shape[1:]], tf.float32, name="image")]
    file = str(out / "float.onnx")
    tf2onnx.convert.from_keras(load_model(source), signature, opset=17, output_path=file)


def quantize_onnx(source: Path, pixels: NDArray[np.float32], out: Path) -> None:
    """ONNX Runtime's quantize_static."""
    import_onnxruntime()  # without telemetry
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.waiting = iter(pixels)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.waiting, None)
            return None if image is None else {"image": image[np.newaxis]}

    quant_pre_process(str(out / "float.onnx"), str(out / "ready.onnx"), skip_symbolic_shape=True)
    quantize_static(
        str(out / "ready.onnx"),
        str(out / "int8.onnx"),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QInt8,
    )


PLAIN = {
    "quantize_tflite": quantize_tflite,
    "export_onnx": export_onnx,
    "quantize_onnx": quantize_onnx,
}
"""The steps of the plain way, in their order."""


def render(document: dict[str, Any]) -> str:
    """Return the measurements as Markdown."""
    runs = document["runs"]

    def middle(way: str, key: str) -> float:
        return median(float(run[key]) for run in runs if run["way"] == way)

    time_ratio = middle("lesiontk", "seconds") / middle("plain", "seconds")
    memory_ratio = middle("lesiontk", "peak_memory_bytes") / middle("plain", "peak_memory_bytes")
    lines = [
        "# Speed of the tool itself\n",
        f"int8 TFLite and ONNX engines of {document['architecture']} at "
        f"{document['image_size']} px from a Keras model (random weights: speed does not depend on "
        "them, and thresholds of verification are lowered for their sake), "
        f"{document['images']} calibration images, in turns on {document['machine']['processor']}, "
        f"{document['machine']['cores']} cores. Plain: "
        "TensorFlow's converter with a representative dataset, tf2onnx from Keras, ONNX Runtime's "
        "quantize_static after its pre-processing, in a process each. lesiontk: "
        "`lesiontk quantize --int8`, verification included. Again: "
        f"`python benchmarks/tool_speed.py --architecture {document['architecture']} --image-size "
        f"{document['image_size']} --images {document['images']}`.\n",
        "| way | round | seconds | peak memory, MB |",
        "| --- | --- | --- | --- |",
    ]
    counts: dict[str, int] = {}
    for run in runs:
        counts[run["way"]] = counts.get(run["way"], 0) + 1
        lines.append(
            f"| {run['way']} | {counts[run['way']]} | {run['seconds']:.0f} | "
            f"{run['peak_memory_bytes'] / 1e6:.0f} |"
        )
    lines.append(
        f"\nMedian: lesiontk takes {time_ratio:.2f} of the plain way's time and {memory_ratio:.2f} "
        "of its memory."
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    cli()
