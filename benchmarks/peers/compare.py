"""lesiontk and other tools on the same float networks, images and machine, in one run.

    make peers DATA=HAM10000        or: python benchmarks/peers/compare.py --data HAM10000 [RECIPE…]

Each tool is a script `with_TOOL.py`, as a user of the tool would write it from its guide, with its
defaults, in a virtual environment of its own (`with_TOOL.txt`, in `build/peers`). All get the
recipe's published float network, its calibration images and, if they train, the training images.
Ours is `lesiontk convert`, and the recipe's published engine if that is of a smaller network. Then
all engines run in turns, are judged on the test split, and are compared with the float32 TFLite
engine of the network.

What was converted is kept and reused; a tool that fails is in the table with its message. Writes
results/peers.json and .md.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from lesiontk.api.progress import make_progress
from lesiontk.backends import open_any, open_engine
from lesiontk.backends.backend import dump_spec
from lesiontk.backends.foreign import RECIPE, ForeignDescription
from lesiontk.backends.keras.backend import load_model
from lesiontk.bench.measure import measure_engines
from lesiontk.data.images import ImageSet
from lesiontk.document import Record, write_record
from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.evaluate.comparison import compare_predictions
from lesiontk.evaluate.metrics import compute_metrics
from lesiontk.recipe import BenchRule
from lesiontk.records import EngineSpec, ImageRecord
from lesiontk.report.result_table import format_estimate
from lesiontk.system.frameworks import import_tensorflow
from lesiontk.system.machine import describe_machine

HERE = Path(__file__).parent
ENGINES = HERE.parent / "engines"
RESULTS = HERE.parent / "results"
CALIBRATION = HERE.parents[1] / "calibration"
sys.path.insert(0, str(HERE.parent))
from published_images import read_published_images  # noqa: E402

PARENT = "lesiontk, float32"
TFLITE = "lesiontk, TFLite int8"
OURS = {
    PARENT: "tflite:float32",
    TFLITE: "tflite:int8",
    "lesiontk, ONNX int8": "onnx:int8",
    "lesiontk, OpenVINO int8": "openvino:int8",
}
COMPRESSED = "lesiontk, compressed, TFLite int8"


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool's script, the back end that runs its engines, and its name in the table."""

    title: str
    script: str
    backend: str

    @property
    def lines(self) -> int:
        """The lines of code that a user writes."""
        text = (HERE / self.script).read_text().split('"""', 2)[2]
        code = (line.strip() for line in re.sub(r'"""[^"]*"""', "", text).splitlines())
        return sum(bool(line) and not line.startswith("#") for line in code)


TOOLS = (
    Tool("TensorFlow's converter", "with_tensorflow.py", "tflite"),
    Tool("tensorflow-model-optimization (QAT, 1 epoch)", "with_tfmot.py", "tflite"),
    Tool("ai-edge-quantizer", "with_ai_edge_quantizer.py", "tflite"),
    Tool("ONNX Runtime quantize_static", "with_onnxruntime.py", "onnx"),
    Tool("NNCF, on OpenVINO", "with_nncf.py", "openvino"),
    Tool("Intel Neural Compressor, on ONNX Runtime", "with_neural_compressor.py", "onnx"),
)


@dataclass(frozen=True, slots=True)
class Made(Record):
    """An engine file that a tool made, or why it made none; seconds of its process."""

    file: str
    seconds: float
    cpu_seconds: float
    lines: int
    failure: str = ""


@click.command()
@click.argument("recipes", nargs=-1)
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--build", default="build/peers", show_default=True, type=click.Path(path_type=Path))
@click.option("--rounds", default=40, show_default=True)
@click.option("--resamples", default=2000, show_default=True)
def main(recipes: tuple[str, ...], data: Path, build: Path, rounds: int, resamples: int) -> None:
    """Compare the tools on the networks of RECIPES; default: all whose network is published."""
    build = build.resolve()
    published = sorted(path.parent.name for path in ENGINES.glob("*/keras_float32.keras"))
    unknown = set(recipes) - set(published)
    if unknown:
        raise click.ClickException(
            f"the float network of {', '.join(sorted(unknown))} is not published; expected one of "
            f"{', '.join(published)}."
        )
    file = RESULTS / "peers.json"
    known = json.loads(file.read_text())["networks"] if file.is_file() else {}
    for recipe in recipes or published:
        known[recipe] = compare_network(recipe, data, build, rounds, resamples)
        document = {
            "machine": describe_machine().to_document(),
            "networks": {name: known[name] for name in sorted(known)},
        }
        RESULTS.mkdir(exist_ok=True)
        file.write_text(json.dumps(document, indent=1) + "\n")
        file.with_suffix(".md").write_text(render(document))


def compare_network(
    recipe: str, data: Path, build: Path, rounds: int, resamples: int
) -> dict[str, Any]:
    """Return what each tool made of a recipe's network, and how that is on the test split."""
    model = ENGINES / recipe / "keras_float32.keras"
    with open_engine(model) as engine:
        spec = engine.spec
    folder = build / recipe
    folder.mkdir(parents=True, exist_ok=True)
    prepare(model, spec, recipe, data, folder)
    made = {name: call_lesiontk(target, recipe, data, folder) for name, target in OURS.items()}
    for tool in TOOLS:
        made[tool.title] = call_tool(tool, spec, build, folder)
    compressed = ENGINES / recipe / "tflite_int8.tflite"
    if is_smaller(compressed, made[TFLITE]):
        made[COMPRESSED] = Made(str(compressed), 0.0, 0.0, 0)
    files = {name: Path(row.file) for name, row in made.items() if not row.failure}
    return {"rows": judge(files, made, spec, recipe, data, rounds, resamples)} | {
        "image_size": spec.preprocessing.image_size,
        "rounds": rounds,
        "split_hash": spec.split_hash,
    }


def is_smaller(engine: Path, converted: Made) -> bool:
    """Return whether an engine is of a smaller network than that which was converted."""
    return not converted.failure and engine.stat().st_size < Path(converted.file).stat().st_size


def prepare(model: Path, spec: EngineSpec, recipe: str, data: Path, folder: Path) -> None:
    """Write what every tool gets: the network in two forms, calibration and training images."""
    if (folder / "targets.npy").is_file():  # written last
        return
    listed = (CALIBRATION / f"{recipe}.csv").read_text().splitlines()[1:]
    calibration = {line.split(",")[0] for line in listed}
    images = read_published_images(spec, recipe, data, lambda _, subset: subset == "train")
    chosen = [number for number, name in enumerate(images.image_ids) if name in calibration]
    if len(chosen) != len(calibration):
        raise click.ClickException(
            f"{len(chosen)} of the {len(calibration)} calibration images of {recipe} are among the "
            f"training images in {data}; expected all."
        )
    shutil.copyfile(model, folder / "model.keras")
    export(model, folder / "saved_model")
    np.save(folder / "calibration.npy", images.pixels[chosen])
    np.save(folder / "training.npy", images.pixels)
    np.save(folder / "targets.npy", images.targets)


def export(model: Path, folder: Path) -> None:
    """Write a SavedModel from image, float32 [1, S, S, 3] of bytes, to probabilities."""
    tf = import_tensorflow()
    network = load_model(model)

    def forward(image: Any) -> dict[str, Any]:
        return {"probabilities": network(image, training=False)}

    signature = [tf.TensorSpec([1, *network.input_shape[1:]], tf.float32, name="image")]
    tf.saved_model.save(network, str(folder), tf.function(forward, input_signature=signature))


def call_lesiontk(target: str, recipe: str, data: Path, folder: Path) -> Made:
    """Convert with the command line, in a copy of a workspace that has the network alone."""
    name = f"ours_{target.replace(':', '_')}"
    record = folder / name / "made.json"
    if record.is_file():
        return Made.from_document(json.loads(record.read_text()))
    imported = folder / "workspace"
    command = [sys.executable, "-m", "lesiontk"]
    model = ["import", str(folder / "model.keras"), "--data", str(data), "--recipe", recipe]
    run_command([*command, *model, "--workspace", str(imported)])
    workspace = folder / name / "workspace"
    shutil.rmtree(workspace, ignore_errors=True)
    shutil.copytree(imported, workspace)
    convert = ["convert", "--to", target, "--workspace", str(workspace), "--json"]
    seconds, cpu, text = run_command([*command, *convert])
    found = json.loads(text)[target]
    if "refused" in found:
        failed = Made("", 0.0, 0.0, 1, found["refused"])
        write_record(record, failed)
        return failed
    return keep(record, Path(found["path"]), seconds, cpu, 1)


def call_tool(tool: Tool, spec: EngineSpec, build: Path, folder: Path) -> Made:
    """Run a tool's script in its own environment, and describe its engine for ours."""
    name = Path(tool.script).stem
    record = folder / name / "made.json"
    if record.is_file():
        return Made.from_document(json.loads(record.read_text()))
    suffix = ".tflite" if tool.backend == "tflite" else ".onnx"
    out = record.parent / f"engine{suffix}"
    out.parent.mkdir(exist_ok=True)
    python = make_environment(name, build / name)
    command = [str(python), str(HERE / tool.script), str(folder), str(out)]
    try:
        seconds, cpu, _ = run_command(command, out.parent)  # some write where they are called
    except click.ClickException as error:
        failed = Made("", 0.0, 0.0, tool.lines, error.message)
        write_record(record, failed)
        return failed
    if tool.backend == "openvino":
        describe(out, replace(spec, backend=tool.backend, precision="int8"))
    return keep(record, out, seconds, cpu, tool.lines)


def keep(record: Path, engine: Path, seconds: float, cpu: float, lines: int) -> Made:
    """Write down what was made, so that it is not made again."""
    record.parent.mkdir(exist_ok=True)
    made = Made(str(engine), round(seconds, 1), round(cpu, 1), lines)
    write_record(record, made)
    return made


def make_environment(name: str, folder: Path) -> Path:
    """Install a tool's requirements into an environment of its own; return its Python."""
    python = folder / "bin" / "python"
    ready = folder / "ready"
    if not ready.is_file():
        uv = [sys.executable, "-m", "uv"]
        run_command([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)])
        requirements = ["--requirement", str(HERE / f"{name}.txt")]
        run_command([*uv, "pip", "install", "--quiet", "--python", str(python), *requirements])
        ready.touch()
    return python


def run_command(command: Sequence[str], place: Path | None = None) -> tuple[float, float, str]:
    """Call a command in the folder `place`; return wall seconds, CPU seconds and its output.

    Raises an error with its last line if it fails.
    """
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=place
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise click.ClickException(f"{Path(command[1]).name} ended with {done.returncode}: {last}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, cpu, done.stdout


def describe(path: Path, spec: EngineSpec) -> None:
    """Write our description into an ONNX graph of float bytes, for our OpenVINO back end."""
    import onnx

    from lesiontk.backends.onnx.graph import embed_spec

    model = onnx.load(path)
    (image,) = model.graph.input
    for node in model.graph.node:  # ours take bytes
        node.input[:] = ["image_float" if name == image.name else name for name in node.input]
    cast = onnx.helper.make_node("Cast", [image.name], ["image_float"], to=onnx.TensorProto.FLOAT)
    model.graph.node.insert(0, cast)
    image.type.tensor_type.elem_type = onnx.TensorProto.UINT8
    embed_spec(model, dump_spec(spec))
    onnx.save(model, path)


def judge(
    files: dict[str, Path],
    made: dict[str, Made],
    spec: EngineSpec,
    recipe: str,
    data: Path,
    rounds: int,
    resamples: int,
) -> list[dict[str, Any]]:
    """Return a row for each engine: scores on test against the parent's, latency, size, effort."""
    images: dict[Any, ImageSet] = {}
    outputs: dict[str, NDArray[np.float32]] = {}

    def tested(_: ImageRecord, subset: str) -> bool:
        return subset == "test"

    foreign = ForeignDescription(spec.labels)
    for name, path in files.items():
        with open_any(path, foreign) as engine:
            described = engine.spec if engine.spec.recipe != RECIPE else spec
            wanted = described.preprocessing
            if wanted not in images:
                images[wanted] = read_published_images(described, recipe, data, tested)
            answers = engine.predict(images[wanted].pixels)
            outputs[name] = answers / answers.sum(axis=1, keepdims=True)  # softmax may be in int8
    shown = next(iter(images.values()))
    rule = BenchRule(rounds=rounds, scenarios=("single_stream",))
    measured = measure_engines(files, shown.pixels[:16], rule, make_progress(), foreign)
    rows = []
    for name, row in made.items():
        document: dict[str, Any] = {"tool": name, **row.to_document()}
        del document["file"]
        if not row.failure:
            scores = compute_metrics(shown.targets, outputs[name], shown.labels)
            comparison = compare_predictions(
                shown.targets,
                outputs[PARENT],
                outputs[name],
                shown.labels,
                shown.groups,
                resamples=resamples,
            )
            faster = measured[name].compare_speed(measured[PARENT], 0.95)
            document |= {
                "n": len(shown.targets),
                "lesions": len(set(shown.groups)),
                "size_bytes": measured[name].size_bytes,
                "samples_ms": [round(sample, 4) for sample in measured[name].samples_ms],
                "faster": faster and asdict(faster),
                "balanced_accuracy": float(scores["balanced_accuracy"][0]),
                "macro_auc": float(scores["macro_auc"][0]),
                "difference": comparison.differences["balanced_accuracy"].to_document(),
                "agreement": comparison.agreement.to_document(),
            }
        rows.append(document)
    return rows


def render(document: dict[str, Any]) -> str:
    """Return the comparison as Markdown."""
    machine = document["machine"]
    parts = [
        "# lesiontk beside other tools\n\nOne run a network: the same float network, calibration "
        "images and test images; engines in turns, one image at a time, one thread, on "
        f"{machine['processor']} ({', '.join(machine['int8_features'])}). Faster: than the float32 "
        "TFLite engine. Balanced accuracy and its difference from that engine's on the test split "
        "by lesion, which chose nothing; in brackets 95 % intervals from a paired bootstrap over "
        "lesions. Seconds: CPU time of the whole process, imports included, for the other tools "
        "from the trained network; ours also verifies. Lines: of code that a user writes "
        "(`benchmarks/peers/with_*.py`), or commands of ours. The other tools have their "
        "defaults.\n\n"
        "Again: `make peers DATA=HAM10000`."
    ]
    for recipe, network in document["networks"].items():
        judged = [row for row in network["rows"] if not row["failure"]]
        lines = [
            f"## {recipe}\n\n{network['image_size']} px; n = {judged[0]['n']} test images of "
            f"{judged[0]['lesions']} lesions, split `{network['split_hash'][:12]}`; "
            f"{network['rounds']} rounds.\n",
            "| tool | faster | MB | balanced accuracy | difference | macro AUC | top-1 as float "
            "| seconds | lines |",
            "|" + " --- |" * 9,
        ]
        lines += [
            render_row(row) for row in sorted(judged, key=lambda row: -row["faster"]["value"])
        ]
        parts.append("\n".join(lines))
        parts += describe_better(judged)
        failed = [row for row in network["rows"] if row["failure"]]
        parts += [f"{row['tool']} made no engine: `{row['failure']}`." for row in failed]
    return "\n\n".join(parts) + "\n"


def describe_better(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return what others do better than ours, uncompressed and on the same runtime."""
    by_tool = {row["tool"]: row for row in rows}
    found = []
    for tool in TOOLS:
        other = by_tool.get(tool.title)
        own = by_tool.get(next(t for t, to in OURS.items() if to == f"{tool.backend}:int8"))
        if other is None or own is None:
            continue
        better = []
        if other["faster"]["low"] > own["faster"]["high"]:
            better.append(
                f"faster ({other['faster']['value']:.2f}× to {own['faster']['value']:.2f}×)"
            )
        if other["size_bytes"] < 0.99 * own["size_bytes"]:
            better.append(f"smaller ({other['size_bytes'] / own['size_bytes']:.0%} of the size)")
        if other["cpu_seconds"] < 0.9 * own["cpu_seconds"]:
            better.append(f"done sooner ({other['cpu_seconds']:.0f} to {own['cpu_seconds']:.0f} s)")
        if better:
            found.append(f"- {tool.title}: {', '.join(better)}")
    if not found:
        return ["No other tool is better than ours on its runtime in speed, size or time."]
    heading = (
        "Better than ours on the same runtime, beyond the intervals, 1 % of size or 10 % of time:"
    )
    return ["\n".join([heading, "", *found])]


def render_row(row: dict[str, Any]) -> str:
    """Return a tool's line of the table."""
    faster, ours = row["faster"], row["tool"].startswith("lesiontk")
    parent = row["tool"] == PARENT
    cells = [
        f"**{row['tool']}**" if ours else row["tool"],
        "1" if parent else f"{faster['value']:.2f}× [{faster['low']:.2f}, {faster['high']:.2f}]",
        f"{row['size_bytes'] / 1e6:.2f}",
        f"{row['balanced_accuracy']:.3f}",
        "–" if parent else format_estimate(Estimate.from_document(row["difference"]), 3),
        f"{row['macro_auc']:.3f}",
        f"{row['agreement']['top1_agreement']:.3f}",
        f"{row['cpu_seconds']:.0f}" if row["lines"] else "–",
        str(row["lines"] or "–"),
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
