"""The report of a run as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lesiontk.backends.engine_facts import EngineFacts
from lesiontk.backends.quantized_tensors import TensorRow
from lesiontk.bench.benchmark import (
    Benchmark,
    list_emulated,
    list_fallbacks,
    size_facts,
)
from lesiontk.bench.findings import critical_recalls, list_low_recalls, list_uninformative
from lesiontk.bench.layer_profile import LayerProfile
from lesiontk.bench.roofline import find_peak
from lesiontk.bench.speed import describe_noise, list_noisy
from lesiontk.calibration.drawn_list import DrawnList
from lesiontk.calibration.stability import Stability
from lesiontk.compress.layers import LayerWidths
from lesiontk.compress.sensitivity import LayerSensitivity, Sensitivity
from lesiontk.data.corruptions import FIELD_MM
from lesiontk.data.dealt_split import DealtSplit
from lesiontk.data.inspection import Inspection
from lesiontk.document import Record
from lesiontk.evaluate.evaluation import EngineEvaluation
from lesiontk.evaluate.findings import describe_absent
from lesiontk.evaluate.fit_input_checks import InputChecks
from lesiontk.evaluate.latency_rounds import Rounds
from lesiontk.evaluate.metrics import CALIBRATION_BINS
from lesiontk.evaluate.robustness import Robustness
from lesiontk.explain.explanation import Explanation
from lesiontk.explain.flips import Flips
from lesiontk.records import ModelFacts, ModelStep
from lesiontk.report import (
    data_wording,
    flip_cards,
    formatting,
    robustness_rows,
    tables,
    wording,
)
from lesiontk.report.result_table import DEVICE_COLUMNS, describe_emulated, list_device_cells
from lesiontk.report.speed_table import (
    LAYER_COLUMNS,
    PATH_COLUMNS,
    ROOFLINE_COLUMNS,
    SCENARIO_COLUMNS,
    describe_conditions,
    describe_peaks,
    describe_pictures,
    describe_profile,
    list_layer_cells,
    list_path_cells,
    list_roofline,
    list_roofline_cells,
    list_scenario_cells,
)
from lesiontk.report.tables import JudgedImage
from lesiontk.system.machine import explain_int8
from lesiontk.technique import describe_step

if TYPE_CHECKING:
    from jinja2 import Environment

    from lesiontk.report.drawing import SvgFigure

TEMPLATE = "report.html.j2"
FILTERS = {
    "bytes": formatting.format_bytes,
    "count": formatting.format_count,
    "counted": formatting.count_things,
    "duration": formatting.format_duration,
    "exact_share": formatting.format_exact_share,
    "latency": formatting.format_latency,
    "level": formatting.format_level,
    "number": formatting.format_number,
    "p_value": formatting.format_p_value,
    "percent": formatting.format_percent,
    "plain": formatting.format_plain,
    "points": formatting.format_points,
    "ratio": formatting.format_ratio,
    "ratio_interval": formatting.format_ratio_interval,
    "decimal": formatting.format_decimal,
    "decimal_estimate": formatting.decimal_estimate,
    "points_estimate": formatting.points_estimate,
    "share_estimate": formatting.share_estimate,
    "backend_name": wording.name_backend,
    "compression_words": describe_step,
    "best_words": wording.describe_best,
    "initial_weights_words": wording.describe_initial_weights,
    "kept_words": wording.describe_recall_constraint,
    "near_duplicate_words": data_wording.describe_near_duplicates,
    "site_words": data_wording.describe_sites,
    "label_name": wording.name_label,
    "metric_name": wording.name_metric,
    "recall_name": wording.name_recall,
    "found_words": wording.describe_found,
    "float_groups": wording.group_float_operators,
    "quantization_words": wording.describe_quantization,
    "size_words": wording.compare_size,
    "speed_words": wording.compare_speed,
    "tensor_name": wording.shorten_name,
    "robustness_words": robustness_rows.describe_robustness,
    "shown_words": robustness_rows.describe_shown,
    "mean_words": robustness_rows.format_mean,
    "direction_words": flip_cards.describe_direction,
    "flip_rows": flip_cards.list_probabilities,
    "flips_table": flip_cards.name_flips_table,
    "heat_cells": robustness_rows.list_heat_cells,
}


@dataclass(frozen=True, slots=True)
class ArtefactOrigin(Record):
    """An artefact of the run: its folder, its content hash, and its parents by role."""

    artefact: str
    content: str
    made_from: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ReportData:
    """The content of the report.

    `metrics` and `engines` map each target (``tflite:int8``) to its evaluation and its manifest's
    facts, `latencies` to its raw ms by round, `curves` has a row per epoch. `images` are the test
    images in the order of the predictions, `confidences` maps targets to their highest probability
    on each of them; both may be empty. `explanation` is None without heatmaps; `heatmaps` maps its
    files to ``data:`` URLs; so does `flip_pictures` with the files of each of `flips`. `versions`
    maps each tool to its versions in the run's artefacts. `tensors` maps targets to their quantized
    activations, the widest first; `sensitivities` maps back ends to their search and
    `sensitive_layers` to the layers, the most sensitive first; `stabilities` maps targets to
    theirs, `input_checks` to the images that their checks refuse, `robustness` to their results on
    corrupted images. `widths` has a row for each layer if the model was pruned. `ancestors` are the
    models that it was derived from, the trained one first.
    """

    name: str
    description: str
    benchmark: Benchmark
    metrics: Mapping[str, EngineEvaluation]
    engines: Mapping[str, EngineFacts]
    curves: Sequence[Mapping[str, float]]
    model: ModelFacts
    training_seconds: float
    recipe: Mapping[str, Any]
    split: DealtSplit | None
    inspection: Inspection | None
    calibration: DrawnList | None
    lineage: Mapping[str, ArtefactOrigin]
    latencies: Mapping[str, Rounds] = field(default_factory=dict)
    images: Sequence[JudgedImage] = ()
    confidences: Mapping[str, Sequence[float]] = field(default_factory=dict)
    explanation: Explanation | None = None
    heatmaps: Mapping[str, str] = field(default_factory=dict)
    flips: Mapping[str, Flips] = field(default_factory=dict)
    flip_pictures: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    versions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    tensors: Mapping[str, Sequence[TensorRow]] = field(default_factory=dict)
    sensitivities: Mapping[str, Sensitivity] = field(default_factory=dict)
    sensitive_layers: Mapping[str, Sequence[LayerSensitivity]] = field(default_factory=dict)
    stabilities: Mapping[str, Stability] = field(default_factory=dict)
    input_checks: Mapping[str, InputChecks] = field(default_factory=dict)
    robustness: Mapping[str, Robustness] = field(default_factory=dict)
    widths: Sequence[LayerWidths] = ()
    ancestors: Sequence[ModelStep] = ()


def write_report(data: ReportData, path: Path) -> None:
    """Write the report in UTF-8; equal data gives equal bytes."""
    path.write_text(render_report(data, draw_pictures(data)), encoding="utf-8")


def render_report(data: ReportData, pictures: Mapping[str, SvgFigure]) -> str:
    """Return the report as HTML; all text from the data is escaped.

    `pictures` are those of `draw_pictures`; missing pictures are left out.
    """
    benchmark = data.benchmark
    rows = benchmark.by_target
    headline = wording.order_by_importance(benchmark)[0]
    emulated = list_emulated(benchmark.rows)
    return (
        make_environment()
        .get_template(TEMPLATE)
        .render(
            data=data,
            benchmark=benchmark,
            rows=rows,
            labels=tables.label_order(benchmark),
            critical=benchmark.critical,
            sentences=wording.summarize_run(benchmark),
            headline=headline,
            names={target: row.name for target, row in rows.items()},
            recalls=critical_recalls(benchmark),
            absent=describe_absent(benchmark.rows[0], benchmark.labels),
            found=wording.describe_critical(benchmark, headline),
            at_threshold=wording.describe_at_threshold(headline),
            uninformative=list_uninformative(benchmark),
            low_recalls=list_low_recalls(benchmark),
            noise=describe_noise(benchmark.rows),
            noisy=list_noisy(benchmark.rows),
            device_columns=DEVICE_COLUMNS,
            device_cells=list_device_cells(benchmark),
            scenario_columns=SCENARIO_COLUMNS,
            scenario_cells=list_scenario_cells(benchmark),
            path_columns=PATH_COLUMNS,
            path_cells=list_path_cells(benchmark),
            path_pictures=describe_pictures(benchmark),
            conditions=describe_conditions(benchmark),
            roofline_columns=ROOFLINE_COLUMNS,
            roofline_cells=list_roofline_cells(benchmark),
            peaks=describe_peaks(benchmark),
            layer_columns=LAYER_COLUMNS,
            layer_cells={t: list_layer_cells(p) for t, p in _profiles(benchmark).items()},
            profiles={t: describe_profile(p) for t, p in _profiles(benchmark).items()},
            emulated=emulated,
            emulated_words=describe_emulated(emulated) if emulated else "",
            verdicts=benchmark.verdicts,
            front=tables.list_front(benchmark),
            fallbacks=list_fallbacks(benchmark.rows),
            sizes=size_facts(benchmark.rows),
            changed_lesions={
                target: tables.count_changed_lesions(row.versus_parent.changed, data.images)
                for target, row in rows.items()
                if row.versus_parent is not None
            },
            confusions=tables.list_confusions(benchmark, data.metrics),
            changed=tables.list_changed(benchmark, data.images, data.confidences),
            pictures=pictures,
            int8_note=explain_int8(benchmark.machine.int8_features, benchmark.machine.architecture),
            check_names=tables.list_checks(data.engines),
            first=next(iter(data.metrics.values())),
            bins=CALIBRATION_BINS,
            field_mm=FIELD_MM,
            steps=[*data.ancestors, data.model] if data.ancestors else [],
            synthetic=_is_synthetic(data.recipe),
            recipe_text=yaml.safe_dump(
                shorten_paths(data.recipe), sort_keys=False, allow_unicode=True
            ),
        )
    )


def _profiles(benchmark: Benchmark) -> dict[str, LayerProfile]:
    return {row.key: row.profile for row in benchmark.rows if row.profile is not None}


def shorten_paths(value: Any) -> Any:
    """Return a document with each absolute path cut to its last part, for sharing."""
    if isinstance(value, Mapping):
        return {key: shorten_paths(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [shorten_paths(entry) for entry in value]
    if isinstance(value, str) and (value.startswith(("/", "~", "\\\\")) or value[1:3] == ":\\"):
        return value.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return value


@cache
def make_environment() -> Environment:
    """Return the templates of this folder with `FILTERS`; they escape everything."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    def load(name: str) -> tuple[str, str, Callable[[], bool]]:
        text = resources.files("lesiontk.report").joinpath(name).read_text(encoding="utf-8")
        return text, name, lambda: True

    environment = Environment(
        loader=FunctionLoader(load),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment


def draw_pictures(data: ReportData) -> dict[str, SvgFigure]:
    """Return the figures that the data supports: pareto, recalls, training, ranges, …"""
    from lesiontk.report.drawing import style_of_engines
    from lesiontk.report.latency_plot import plot_latency
    from lesiontk.report.layer_plot import plot_layers
    from lesiontk.report.pareto_plot import plot_pareto
    from lesiontk.report.plots import plot_recalls, plot_reliability, plot_training
    from lesiontk.report.ranges_plot import plot_ranges
    from lesiontk.report.roofline_plot import plot_roofline
    from lesiontk.report.sensitivity_plot import plot_sensitivity
    from lesiontk.report.widths_plot import plot_widths

    benchmark = data.benchmark
    styles = style_of_engines(list(benchmark.by_target))
    evaluated = {target: data.metrics[target] for target in styles if target in data.metrics}
    compared = {t: evaluated[t] for t in tables.list_compared(benchmark) if t in evaluated}
    pictures = {}
    points = tables.list_points(benchmark)
    if points:
        pictures["pareto"] = plot_pareto(points, styles)
    shown = {t: data.latencies[t] for t in styles if t in data.latencies}
    if shown:
        pictures["latency"] = plot_latency(shown, styles)
    peak = find_peak(benchmark.peaks, benchmark.threads)
    if peak is not None and (on_roofline := list_roofline(benchmark)):
        pictures["roofline"] = plot_roofline(on_roofline, peak, styles)
    for target, profile in _profiles(benchmark).items():
        pictures[f"layers {target}"] = plot_layers(profile, styles[target])
    if evaluated:
        labels = tables.label_order(benchmark)
        notes = tables.describe_labels(labels, next(iter(evaluated.values())), data.split)
        names: dict[str, str] = {row.key: row.name for row in benchmark.rows}
        pictures["recalls"] = plot_recalls(evaluated, labels, notes, styles, names)
        pictures["reliability"] = plot_reliability(compared, styles, names)
    if data.curves:
        pictures["training"] = plot_training(data.curves, data.model.best_epoch, benchmark.critical)
    for target, rows in data.tensors.items():
        pictures[f"ranges {target}"] = plot_ranges(rows, target, styles[target])
    if data.widths:
        pictures["widths"] = plot_widths(data.widths)
    for backend, found in data.sensitivities.items():
        style = style_of_engines([f"{backend}:mixed"])[f"{backend}:mixed"]
        pictures[f"sensitivity {backend}"] = plot_sensitivity(
            data.sensitive_layers[backend], found.kept or (), backend, style
        )
    return pictures


def _is_synthetic(recipe: Mapping[str, Any]) -> bool:
    section = recipe.get("data", {})
    return section.get("source") == "synthetic" and section.get("path") is None
