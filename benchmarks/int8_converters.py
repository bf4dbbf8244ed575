"""Comparison of int8 quantizers: TensorFlow's converter, ai-edge-quantizer and lesiontk.

    python benchmarks/int8_converters.py MODEL… [--workspace DIR]

All use the same calibration images of the training split and are compared with the float engine on
the validation split only, because the default of lesiontk was chosen from this table. Writes
results/int8_converters.md and .json.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from lesiontk.api.progress import make_progress
from lesiontk.backends import open_engine
from lesiontk.backends.backend import QuantizationPlan, dump_spec
from lesiontk.backends.keras.backend import load_model
from lesiontk.backends.reference_outputs import engine_file
from lesiontk.backends.tflite.conversion import convert_keras
from lesiontk.backends.tflite.graph import embed_spec
from lesiontk.backends.tflite.quantization import quantize_static
from lesiontk.backends.tflite.tensors import tensor_reader
from lesiontk.bench.measure import measure_engines
from lesiontk.calibration.draw import draw_calibration
from lesiontk.calibration.observers import OBSERVERS
from lesiontk.compress.batchnorm_folding import fold_batchnorm
from lesiontk.data.images import ImageSet, open_images
from lesiontk.errors import DataError
from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.evaluate.comparison import compare_predictions
from lesiontk.evaluate.metrics import compute_metrics
from lesiontk.evaluate.signal_to_noise import measure_signal
from lesiontk.recipe import BenchRule, CalibrateConfig
from lesiontk.records import Artefact, EngineSpec, ModelFacts
from lesiontk.report.result_table import format_estimate
from lesiontk.stages.equalize import equalize_model
from lesiontk.store import Store
from lesiontk.system.frameworks import import_tensorflow
from lesiontk.system.machine import describe_machine
from lesiontk.system.native_output import suppress_native_output

RESULTS = Path(__file__).parent / "results"
FLOAT = "float32"
DEFAULT = "lesiontk, min_max, biases corrected"
EQUALIZED = "lesiontk, min_max, equalized, biases corrected"
Pixels = NDArray[np.uint8]


def convert_with_tensorflow(model: Path, images: Pixels) -> bytes:
    """Return the engine of TFLiteConverter with these images as its representative dataset."""
    tf = import_tensorflow()
    keras_model = load_model(model)
    shape = [1, *keras_model.input_shape[1:]]

    def forward(image: Any) -> dict[str, Any]:
        return {"probabilities": keras_model(image, training=False)}

    signature = [tf.TensorSpec(shape, tf.float32, name="image")]
    function = tf.function(forward, input_signature=signature).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], keras_model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([i[np.newaxis].astype(np.float32)] for i in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    with warnings.catch_warnings(), suppress_native_output():
        warnings.simplefilter("ignore")
        return bytes(converter.convert())


def convert_with_ai_edge_quantizer(content: bytes, images: Pixels) -> bytes:
    """Return the engine of ai-edge-quantizer from the float file, with its own calibration."""
    from ai_edge_quantizer import quantizer, recipe_manager
    from ai_edge_quantizer.qtyping import TFLOperationName

    manager = recipe_manager.RecipeManager()
    manager.add_static_config(
        regex=".*",
        operation_name=TFLOperationName.ALL_SUPPORTED,
        activation_num_bits=8,
        weight_num_bits=8,
    )
    manager.add_quantization_config(  # probabilities come out as float32, as from the others
        regex=".*", operation_name=TFLOperationName.OUTPUT, algorithm_key="no_quantize"
    )
    job = quantizer.Quantizer(bytearray(content), manager.get_quantization_recipe())
    silence = io.StringIO()
    with redirect_stdout(silence), redirect_stderr(silence), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = {"serving_default": [{"image": image[np.newaxis]} for image in images]}
        return bytes(job.quantize(job.calibrate(data)).quantized_model)


def convert_equalized(model: Path, folder: Path) -> bytes | None:
    """Return the float32 flatbuffer after cross-layer equalization; None if not possible."""
    network = fold_batchnorm(load_model(model))
    try:
        equalize_model(network)
    except DataError:  # bounded activations, such as ReLU6, do not scale
        return None
    file = folder / "equalized.keras"
    network.save(file)
    return convert_keras(file)


def list_ways(
    model: Path, content: bytes, images: Pixels, folder: Path
) -> dict[str, Callable[[], bytes]]:
    """Return name -> int8 quantizer."""

    def derive(observer: str, correct: bool, graph: bytes = content) -> Callable[[], bytes]:
        plan = QuantizationPlan(images, observer, correct_bias=correct)
        return lambda: quantize_static(graph, plan)[0]

    ways: dict[str, Callable[[], bytes]] = {
        "TensorFlow's converter": lambda: convert_with_tensorflow(model, images),
        "ai-edge-quantizer": lambda: convert_with_ai_edge_quantizer(content, images),
        "lesiontk, moving_average": derive("moving_average", False),
        "lesiontk, min_max": derive("min_max", False),
    }
    for observer in OBSERVERS:
        ways[f"lesiontk, {observer}, biases corrected"] = derive(observer, True)
    if equalized := convert_equalized(model, folder):
        ways["lesiontk, min_max, equalized"] = derive("min_max", False, equalized)
        ways[EQUALIZED] = derive("min_max", True, equalized)
    return ways


def compare_ways(
    model: Artefact, images: ImageSet, name: str, rounds: int, resamples: int
) -> dict[str, Any]:
    """Return the validation scores, latencies and conversion times of the quantizers."""
    rule = CalibrateConfig(**model.manifest.recipe["calibration"])
    listed = images.pixels[draw_calibration(images, rule.images, rule.draw, rule.seed)]
    rows = images.indices("validation")
    pixels = np.asarray(images.pixels[rows])
    groups = [images.groups[row] for row in rows]
    truth = images.targets[rows]
    with tempfile.TemporaryDirectory() as folder:
        with open_engine(engine_file(model)) as engine:
            spec = replace(engine.spec, backend="tflite", precision="int8")
        start = time.perf_counter()
        content = convert_keras(engine_file(model))
        seconds = {FLOAT: time.perf_counter() - start}
        files = {FLOAT: write_engine(content, replace(spec, precision=FLOAT), folder, 0)}
        for number, (way, make) in enumerate(
            list_ways(engine_file(model), content, listed, Path(folder)).items(), start=1
        ):
            start = time.perf_counter()
            made = make()
            seconds[way] = time.perf_counter() - start
            files[way] = write_engine(made, spec, folder, number)
        outputs = {}
        for way, path in files.items():
            with open_engine(path) as engine:
                answers = engine.predict(pixels)
            # Softmax in int8, as in the other two, gives rows that do not sum to 1.
            outputs[way] = answers / answers.sum(axis=1, keepdims=True)
        measured = measure_engines(
            files,
            pixels[:8],
            BenchRule(rounds=rounds, queries=1, scenarios=("single_stream",)),
            make_progress(),
        )
        read = tensor_reader(content)
        signals = {
            way: measure_signal(
                read, tensor_reader(path.read_bytes()), (i[np.newaxis] for i in pixels[:16])
            )
            .summarize(3)
            .to_document()
            for way, path in files.items()
            if way != FLOAT and "equalized" not in way  # its activations have other scales
        }
    found = []
    for way in files:
        scores = compute_metrics(truth, outputs[way], images.labels)
        comparison = compare_predictions(
            truth, outputs[FLOAT], outputs[way], images.labels, groups, resamples=resamples
        )
        found.append(
            {
                "way": way,
                "seconds": round(seconds[way], 1),
                "size_bytes": measured[way].size_bytes,
                "latency_ms": measured[way].latency.to_document(),
                "samples_ms": [round(sample, 4) for sample in measured[way].samples_ms],
                "balanced_accuracy": float(scores["balanced_accuracy"][0]),
                "accuracy": float(scores["accuracy"][0]),
                "difference": comparison.differences["balanced_accuracy"].to_document(),
                "agreement": comparison.agreement.to_document(),
                "signal": signals.get(way),
            }
        )
    return {
        "model": name,
        "architecture": model.read_facts(ModelFacts).architecture,
        "image_size": spec.preprocessing.image_size,
        "calibration_images": len(listed),
        "n": len(rows),
        "lesions": len(set(groups)),
        "split_hash": images.split_hash,
        "ways": found,
    }


def write_engine(content: bytes, spec: EngineSpec, folder: str, number: int) -> Path:
    """Write an engine with a description, so that it can be opened like any other."""
    path = Path(folder) / f"{number}.tflite"
    path.write_bytes(embed_spec(content, dump_spec(spec)))
    return path


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--workspace", type=click.Path(path_type=Path), default="lesiontk-workspace")
@click.option("--rounds", default=100, show_default=True)
@click.option("--resamples", default=1000, show_default=True)
def compare(models: tuple[str, ...], workspace: Path, rounds: int, resamples: int) -> None:
    """Compare the ways to int8 on MODELS of the workspace; write the table."""
    store = Store(workspace, make_progress())
    found = []
    for reference in models:
        model = store.resolve(reference, "model")
        images = open_images(store.parent(model, "images"))
        found.append(compare_ways(model, images, model.recipe_name, rounds, resamples))
    document = {"machine": describe_machine().to_document(), "rounds": rounds, "models": found}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "int8_converters.json").write_text(json.dumps(document, indent=1) + "\n")
    (RESULTS / "int8_converters.md").write_text(render(document))


def format_difference(document: dict[str, Any]) -> str:
    """Return a difference and its interval."""
    return format_estimate(Estimate.from_document(document), 4)


def render(document: dict[str, Any]) -> str:
    """Return the comparison as Markdown."""
    machine = document["machine"]
    parts = [
        "# Ways to int8 for TFLite\n\nEvery way got the same calibration images of the training "
        "split. Judged on the **validation** split, for the default was chosen here (last table): "
        f"`{DEFAULT}`. Agreement and drift (mean |difference| of probabilities) are against the "
        "float32 engine of the same file; in brackets 95 % intervals of the difference from a "
        "paired bootstrap over lesions. Latency: median of one image at a time, one thread, "
        f"n = {document['rounds']} per engine, taken in turns, on {machine['processor']} "
        f"({', '.join(machine['int8_features'])}), shared with other work. Seconds: to make the "
        "engine, from Keras for TensorFlow's converter and for float32, from the float32 file for "
        "the others. SNR: the median over the layers, n = 16 images, and the worst layer.\n\n"
        "Again: `python benchmarks/int8_converters.py MODEL… --workspace DIR`."
    ]
    for model in document["models"]:
        lines = [
            f"## {model['model']}\n\n{model['architecture']}, {model['image_size']} px, "
            f"{model['calibration_images']} calibration images; n = {model['n']} validation images "
            f"of {model['lesions']} lesions, split `{model['split_hash'][:12]}`.\n",
            "| way | balanced accuracy | difference | accuracy | top-1 as float | drift | KL, nats "
            "| median SNR, dB | worst layer, dB | latency, ms | size, MB | seconds |",
            "|" + " --- |" * 12,
        ]
        for way in model["ways"]:
            agreement, signal = way["agreement"], way["signal"]
            worst = signal["worst"][0]["decibels"] if signal and signal["worst"] else None
            median = signal["median_decibels"] if signal else None
            cells = [
                f"**{way['way']}**" if way["way"] == DEFAULT else way["way"],
                f"{way['balanced_accuracy']:.4f}",
                "–" if way["way"] == FLOAT else format_difference(way["difference"]),
                f"{way['accuracy']:.4f}",
                f"{agreement['top1_agreement']:.4f}",
                f"{agreement['mean_absolute_drift']:.5f}",
                f"{agreement['mean_kl_divergence']:.5f}",
                "–" if median is None else f"{median:.1f}",
                "–" if worst is None else f"{worst:.1f}",
                f"{way['latency_ms']['median']:.2f}",
                f"{way['size_bytes'] / 1e6:.2f}",
                f"{way['seconds']:.0f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
        parts.append("\n".join(lines))
    parts.append(render_means(document["models"]))
    parts.append(
        "What costs the accuracy:\n\n"
        "- Ranges. ai-edge-quantizer calls its calibration min-max, and takes an exponential "
        "average (0.95) of each image's extremes: what exceeds the typical image is clipped, in "
        "every layer. `lesiontk, moving_average` differs from `lesiontk, min_max` in this alone: "
        "the plain networks lose by it, EfficientNet's ReLU6 bounds what there is to clip.\n"
        "- The border. The two others quantize the normalization as operators of its own, so that "
        "pixels are rounded (and, with averaged ranges, clipped) before the first layer, and "
        "Softmax to steps of 1/256. lesiontk folds the normalization into the scale and zero point "
        "of the input's bytes, which changes none of them, and leaves Softmax in float.\n"
        "- Weights. In a depthwise network a rounded kernel shifts the mean of its whole channel. "
        "Biases that take this back (Nagel et al., arXiv:1906.04721) cost nothing when the engine "
        "runs; `biases corrected` differs from the row without in this alone. Cross-layer "
        "equalization (`equalized`), of the same paper, is measured where activations are "
        "unbounded; with a scale for each output channel there is little left to mend, and it "
        "stays a step that is asked for (`lesiontk equalize`)."
    )
    return "\n\n".join(parts) + "\n"


def render_means(models: Sequence[dict[str, Any]]) -> str:
    """Return the mean of each quantizer over the models, if it supports all of them."""
    ways = [{way["way"]: way for way in model["ways"]} for model in models]
    lines = [
        f"## All {len(models)} models\n\nMeans. Between `min_max`, `percentile`, `entropy` and "
        "`mse` the differences in balanced accuracy may be chance on every model. `mse` drifts a "
        "little less and takes several times as long; `min_max` is the default, and clips "
        "nothing.\n",
        "| way | balanced accuracy, difference | top-1 as float | drift | seconds |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in ways[0]:
        if name == FLOAT or not all(name in found for found in ways):
            continue
        found = [each[name] for each in ways]
        cells = [
            f"**{name}**" if name == DEFAULT else name,
            f"{np.mean([way['difference']['value'] for way in found]):+.4f}",
            f"{np.mean([way['agreement']['top1_agreement'] for way in found]):.4f}",
            f"{np.mean([way['agreement']['mean_absolute_drift'] for way in found]):.5f}",
            f"{np.mean([way['seconds'] for way in found]):.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    compare()
