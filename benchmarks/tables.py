"""Write results/README.md: the published study's table, and one with every recipe.

    python benchmarks/tables.py

Reads results/*.json, which `publish.py` and the studies write; all figures are from there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import specificity
from model_card import INT8

from lesiontk.bench.benchmark import Benchmark, EngineRow, ParentComparison
from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.evaluate.evaluation import ExternalEvaluation
from lesiontk.evaluate.verdict import describe_outcomes
from lesiontk.records import ValidationScores
from lesiontk.report.result_table import format_estimate, format_sizes
from lesiontk.stage import EngineName
from lesiontk.technique import TECHNIQUES

RESULTS = Path(__file__).parent / "results"
STUDY = (
    ("Seven classes", ("cnn_7class", "resnet152v2_7class")),
    ("Malignant against benign", ("cnn_binary", "vgg16_binary")),
)
STUDIES = {
    "imbalance_ablation": "which treatment of rare classes is best, on validation; the toolkit's "
    "default comes from it, the recipes above were trained before",
    "enhancement_study": "Inception-v2 with and without enhancement, in pairs",
    "cross_validation": "every image tested once: five networks of a recipe, int8 against float",
    "search_study": "engines that a search found, beside those made by hand",
    "robustness": "whether the int8 engines lose more on corrupted images",
    "distill_losses": "what the pictures that a teacher predicts are worth, on validation",
    "specificity": "how many malignant lesions are found at 90 % specificity",
    "search_workers": "the same search in one process and with two workers of Ray",
    "leaky_split": "how much a split by image inflates the scores",
    "int8_converters": "comparison of int8 quantizers for TFLite, on validation",
    "int8_by_cpu": "int8 on a CPU without VNNI: no gain in speed for TFLite, and an overflow "
    "in ONNX Runtime that was fixed",
    "stability": "how much int8 depends on the choice of calibration images",
    "input_pipeline_cnn_7class": "the share of training time spent waiting for images",
    "tool_speed": "the time of quantizing a large network, compared with the tools alone",
    "peers": "the same networks converted by other tools, in one run with ours",
    "compression": "size, latency and loss of compressed networks",
    "input_checks": "whom the input checks of the published engines refuse",
    "pruning_curves": "accuracy against operations, with and without distillation",
}
AIMS = (
    ("cnn_7class", "balanced_accuracy", 0.70, "50 epochs from random weights"),
    ("cnn_binary", "macro_auc", 0.90, ""),
    ("efficientnet_lite0_binary", "accuracy", 0.8866, "one training at 128 pixels"),
    ("efficientnet_lite0_binary", "macro_auc", 0.93, "as above"),
    ("vgg16_binary", "accuracy", 0.8866,
     "grown from 80 over 96 to 128 pixels in 12 epochs; on validation, worse: 8 epochs at 96 "
     "pixels, and soft targets of efficientnet_lite0_binary"),
    ("vgg16_binary", "macro_auc", 0.93, "as above"),
    ("vgg16_7class", "balanced_accuracy", 0.75,
     "grown from 80 over 96 to 112 pixels in 12 epochs; on validation, worse: soft targets of "
     "efficientnet_lite0_7class, which at that time neglected rare classes"),
    ("efficientnet_lite0_7class", "balanced_accuracy", 0.78,
     "on validation, shorter: other learning rates and weight decay, mixup, flips alone, no "
     "averaged weights, equal rates for all layers, which was chosen"),
    ("efficientnet_lite0_7class", "macro_auc", 0.965, "as above"),
    ("efficientnet_lite2_7class", "balanced_accuracy", 0.80,
     "one seed, grown from 128 over 160 and 192 to 224 pixels in 24 epochs; validation rose from "
     "0.790 to 0.797 in the last 8"),
    ("efficientnet_lite2_7class", "macro_auc", 0.97, "as above"),
    ("resnet152v2_7class", "balanced_accuracy", 0.68,
     "no pretrained weights were available; grown from 48 to 64 pixels and distilled from "
     "efficientnet_lite0_7class in 16 epochs, 0.531 on validation and 0.527 on test; the "
     "published network grew from 32 over 48 pixels in 12, with soft targets that no longer "
     "neglect rare classes; its compressed network, recovered for 85 epochs, is better, see "
     "below; without zero-initialized residual branches: 0.20 to 0.29 on validation after 7"),
)  # fmt: skip
"""Recipe, metric on test, goal, and what was tried."""

PARENT, SMALL = "keras:float32", "tflite:int8"
FRONT = ("cnn_7class", "efficientnet_lite0_7class", "vgg16_binary")
"""The recipes on the front page."""


def write_tables() -> None:
    """Render every published result into one page."""
    published = {
        path.stem: json.loads(path.read_text())
        for path in sorted(RESULTS.glob("*.json"))
        if path.stem not in STUDIES
    }
    (RESULTS / "README.md").write_text(render(published, list_studies(), read_sensitivities()))


def read_sensitivities() -> dict[str, Estimate]:
    """Return recipe -> the sensitivity of its int8 TFLite engine at 90 % specificity."""
    return {row.recipe: row.sensitivity for row in specificity.read_results() if row.file == INT8}


def render(
    published: Mapping[str, Mapping[str, Any]],
    studies: Sequence[str],
    sensitivities: Mapping[str, Estimate],
) -> str:
    """Return the page for recipe -> its result document."""
    first = next(iter(published.values()))
    n = first["benchmark"]["rows"][0]["n"]
    lesions = sum(first["split"]["lesions"]["test"].values())
    parts = [
        "# Results on HAM10000\n\nResearch software, not a medical device. One split by lesion for "
        f"all, stratified by diagnosis: test n = {n} images of {lesions} lesions, read once per "
        "row; everything was chosen on validation. The images are copies of "
        f"{' and '.join(first['sizes'])} pixels: results on the originals will differ. In "
        "brackets 95 % intervals from a bootstrap over lesions. Sensitivity and specificity: "
        "malignant (akiec, bcc, mel) against the rest, at the threshold frozen on validation. "
        "External: the 193 images of ISIC 2018 task 3 validation. One file a recipe has all "
        "figures; the model cards are in `../engines/`.",
        "## Summary\n\nThe network in float32, and the difference of TFLite int8 to its float32 "
        "TFLite engine in the same run. The gates are the [default ones](../../docs/gates.md), of "
        "the int8 engine against the trained network.\n\n" + summarize(published, "../engines"),
        "## As in the published study\n\n"
        + "\n\n".join(
            f"{title}:\n\n"
            + _compare([(name, published[name]) for name in names if name in published])
            for title, names in STUDY
            if set(names) & set(published)
        ),
        "## All recipes, full precision\n\n" + _list_all(published),
        "## Aims\n\nFull precision, on test; the intervals are above.\n\n" + _list_aims(published),
        "## Loss of the small engines\n\nTFLite int8, calibrated after training, against the "
        "trained model; speed-up and size ratio against its float32 TFLite engine, one thread. "
        "Compressed networks are in [compression](compression.md). Earlier gates, on measured "
        "differences, decided which of them replaced a recipe's engine; the model cards contain "
        "the verdicts of the current gates. The sensitivity to malignant lesions is at the "
        "threshold with 90 % specificity on validation ([at which specificity on test]"
        "(specificity.md)).\n\n" + _list_int8(published, sensitivities),
        "## Training\n\n" + _list_trainings(published),
    ]
    if studies:
        parts.append("## Studies\n\n" + "\n".join(studies))
    return "\n\n".join(parts) + "\n"


def summarize(published: Mapping[str, Mapping[str, Any]], engines: str) -> str:
    """Return a table of each recipe in float32 and the difference of int8; `engines` is the
    folder."""
    rows = []
    for name, document in published.items():
        whole, (small, versus) = find_trained(document), find_small(document)
        rows.append(
            [
                f"[{name}]({engines}/{name}/README.md)",
                describe_size(document),
                format_estimate(whole.metrics["balanced_accuracy"]),
                format_estimate(whole.point.auc),
                format_estimate(whole.point.sensitivity),
                format_estimate(versus.differences["balanced_accuracy"]),
                format_estimate(small.point.sensitivity),
                _format_speedup(versus, 1),
                f"{versus.size_ratio:.1f}×",
                count_outcomes(document, SMALL),
            ]
        )
    return _table(
        ["recipe", "px", "balanced accuracy", "AUC, malignant", "sensitivity",
         "int8: balanced accuracy", "sensitivity", "faster", "smaller", "gates"],
        rows,
    )  # fmt: skip


def count_outcomes(document: Mapping[str, Any], target: str) -> str:
    """Return how many gates of one engine passed, failed and are not shown."""
    verdicts = read_benchmark(document).verdicts
    return describe_outcomes(verdict for verdict in verdicts if verdict.engine == target)


def list_studies() -> list[str]:
    return [
        f"- [{name}]({name}.md): {what}"
        for name, what in STUDIES.items()
        if (RESULTS / f"{name}.md").is_file()
    ]


def read_benchmark(document: Mapping[str, Any]) -> Benchmark:
    """Return the benchmark of a result document."""
    return Benchmark.from_document(document["benchmark"])


def find_row(document: Mapping[str, Any], target: str) -> EngineRow:
    """Return the row of one engine of a result document; of a compressed one that replaced it."""
    if target in document.get("replaced", {}):
        return EngineRow.from_document(document["replaced"][target]["row"])
    return read_benchmark(document).by_target[EngineName(target)]


def find_small(document: Mapping[str, Any]) -> tuple[EngineRow, ParentComparison]:
    """Return the row of the int8 TFLite engine, and its comparison with its parent."""
    row = find_row(document, SMALL)
    if row.versus_parent is None:
        raise ValueError(f"{SMALL} was compared with no parent")
    return row, row.versus_parent


def find_trained(document: Mapping[str, Any]) -> EngineRow:
    """Return the row of the trained network, before compression."""
    rows = read_benchmark(document).by_target
    return rows.get(EngineName(PARENT, reference=True)) or rows[EngineName(PARENT)]


def _recall(document: Mapping[str, Any], row: EngineRow) -> str:
    critical = document["benchmark"]["critical"]
    return f"{format_estimate(row.metrics[f'recall[{critical}]'])} ({critical})"


def _compare(chosen: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    rows = []
    for name, document in chosen:
        row = find_trained(document)
        metrics = (row.metrics[m] for m in ("accuracy", "balanced_accuracy", "macro_auc"))
        parameters = f"{document['trained']['parameters']:,}"
        rows.append([name, parameters, *map(format_estimate, metrics), _recall(document, row)])
    header = ["recipe", "parameters", "accuracy", "balanced accuracy", "macro AUC", "recall"]
    return _table(header, rows)


def describe_size(document: Mapping[str, Any]) -> str:
    """Return the size of the images in training, and that of the engines if different."""
    trained = document["recipe"]["data"]["image_size"]
    now = find_row(document, SMALL).image_size or document["benchmark"]["image_size"]
    return format_sizes(trained, now)


def _list_all(published: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, document in published.items():
        row = find_trained(document)
        metrics, point = row.metrics, row.point
        checked = None
        if document["external"] is not None:
            found = document["external"]["engines"][row.key]
            checked = ExternalEvaluation.from_document(found).metrics["balanced_accuracy"]
        rows.append(
            [
                name,
                f"{document['recipe']['data']['image_size']}",
                *(format_estimate(metrics[m]) for m in ("accuracy", "balanced_accuracy")),
                format_estimate(metrics["macro_auc"]),
                _recall(document, row),
                *map(format_estimate, (point.auc, point.sensitivity, point.specificity)),
                format_estimate(metrics["expected_calibration_error"]),
                format_estimate(checked),
                f"`{document['benchmark']['split_hash'][:12]}`",
            ]
        )
    return _table(
        ["recipe", "px", "accuracy", "balanced accuracy", "macro AUC", "recall", "AUC, malignant",
         "sensitivity", "specificity", "ECE", "external balanced accuracy", "split"],
        rows,
    )  # fmt: skip


def _list_aims(published: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, metric, aim, tried in AIMS:
        if name in published:
            value = find_trained(published[name]).metrics[metric].value or 0.0
            missed = [f"{100 * (aim - value):.2f} points", tried] if value < aim else ["–", ""]
            rows.append([name, metric.replace("_", " "), f"{aim:g}", f"{value:.4f}", *missed])
    return _table(["recipe", "metric", "aim", "reached", "missed by", "tried"], rows)


def _list_int8(
    published: Mapping[str, Mapping[str, Any]], sensitivities: Mapping[str, Estimate]
) -> str:
    rows = []
    for name, document in published.items():
        row, versus = find_small(document)
        rows.append(
            [
                name,
                " → ".join([*list_techniques(document), "int8"]),
                format_estimate(row.metrics["balanced_accuracy"]),
                format_estimate(versus.differences["balanced_accuracy"], 4),
                _recall(document, row),
                format_estimate(sensitivities.get(name)),
                f"{row.size_bytes / 1e6:.2f}",
                _format_speedup(versus, 2),
                f"{versus.size_ratio:.2f}×",
                f"{len(versus.changed)}",
            ]
        )
    return _table(
        ["recipe", "by", "balanced accuracy", "difference", "recall",
         "sensitivity at 90 % specificity", "size, MB", "faster", "smaller",
         "images that change class"],
        rows,
    )  # fmt: skip


def list_techniques(document: Mapping[str, Any]) -> list[str]:
    """Return the compressions of the small engine's network."""
    replaced = document.get("replaced", {}).get(SMALL)
    steps = replaced["steps"] if replaced else document["steps"][1:]
    return [TECHNIQUES.renamed.get(step["step"], step["step"]) for step in steps]


def _list_trainings(published: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, document in published.items():
        model = document["trained"]
        validation = ValidationScores.from_document(model["validation"])
        rows.append(
            [
                name,
                f"{document['training_seconds'] / 60:.0f}",
                f"{model['best_epoch']} of {model['epochs']}",
                f"{validation.balanced_accuracy:.3f} (n = {validation.n})",
                f"`{document['command']}`",
            ]
        )
    header = ["recipe", "minutes", "best epoch", "validation balanced accuracy", "again"]
    return _table(header, rows)


def _format_speedup(versus: ParentComparison, digits: int) -> str:
    """Return ``3.1×``, or a dash without timing."""
    return "–" if versus.speedup is None else f"{versus.speedup:.{digits}f}×"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


if __name__ == "__main__":
    write_tables()
