"""A benchmark as Markdown tables, for result files and model cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lesiontk.bench.benchmark import (
    emulated_by,
    has_own_parent,
    list_emulated,
    list_fallbacks,
    name_row,
    name_target,
    size_facts,
)
from lesiontk.evaluate.operating_point import DEFAULT_THRESHOLD, PARENT_SENSITIVITY
from lesiontk.evaluate.verdict import describe_outcomes, read_verdicts


def format_estimate(
    estimate: Mapping[str, float | None] | None, digits: int = 3, interval: str = "[{}, {}]"
) -> str:
    """Return ``0.812 [0.790, 0.834]``, or a dash where the data cannot tell."""
    if estimate is None or estimate["value"] is None:
        return "–"
    value = f"{estimate['value']:z.{digits}f}"
    if estimate["low"] is None:
        return value
    ends = (f"{estimate[end]:z.{digits}f}" for end in ("low", "high"))
    return f"{value} {interval.format(*ends)}"


def format_speedup(row: Mapping[str, Any], interval: str = "[{}, {}]") -> str:
    """Return ``2.78× [2.70, 2.85]``, with the parent's runtime where it is another.

    A dash where there is no parent, or one of the two was emulated.
    """
    versus = row["versus_parent"]
    if versus is None or versus["speedup"] is None or emulated_by(row):
        return "–"
    text, ends = f"{versus['speedup']:.2f}×", versus.get("speedup_interval")
    if ends:
        text += f" {interval.format(*(f'{end:.2f}' for end in ends))}"
    return text if has_own_parent(row) else f"{text} than {versus['parent']}"


def describe_emulated(emulated: Mapping[str, str]) -> str:
    """Return what an emulated engine's figures are; `emulated` is of `list_emulated`."""
    engines, emulators = ", ".join(emulated), ", ".join(dict.fromkeys(emulated.values()))
    return (
        f"Emulated by {emulators}: {engines}. The scores are those of the graph's own arithmetic, "
        "not of TensorRT on a GPU; speed and memory are not known."
    )


def describe_origin(point: Mapping[str, Any]) -> str:
    """Return where the threshold of an operating point comes from."""
    if point["rule"] == "given":
        return "user-supplied"
    if point["rule"] == "default":
        return f"default {DEFAULT_THRESHOLD:g}"
    return f"{name_rule(point['rule'])}, {point['validation']['n']} validation images"


def name_rule(rule: str) -> str:
    """Return a rule of thresholds in words."""
    return "the parent's sensitivity kept" if rule == PARENT_SENSITIVITY else rule


def describe_choice(point: Mapping[str, Any]) -> str:
    """Return the rule of a frozen threshold, and what it gave where it was chosen."""
    chosen = point["validation"]
    return (
        f"{name_rule(point['rule'])}, n = {chosen['n']}, sensitivity {chosen['sensitivity']:.3f}, "
        f"specificity {chosen['specificity']:.3f}"
    )


def format_sizes(trained: int, now: int) -> str:
    """Return the size of an engine's images, and before it that of training where it is another."""
    return str(now) if now == trained else f"{trained} → {now}"


def table_from_benchmark(benchmark: Mapping[str, Any]) -> str:
    """Return the engines of a benchmark as Markdown, each beside its full-precision parent."""
    critical = f"recall[{benchmark['critical']}]"
    lines = [
        "| engine | median ms (p90) | size, MB | peak memory, MB | accuracy | balanced accuracy "
        f"| macro AUC | {critical} | against | faster | smaller | balanced-accuracy difference |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    sizes = size_facts(benchmark["rows"])
    for row in benchmark["rows"]:
        metrics, versus, latency = row["metrics"], row["versus_parent"], row["latency_ms"]
        cells = [
            name_row(row) + sizes[name_target(row)],
            "–" if emulated_by(row) else f"{latency['median']:.2f} ({latency['p90']:.2f})",
            f"{row['size_bytes'] / 1e6:.2f}",
            "–" if emulated_by(row) else f"{row['peak_memory_bytes'] / 1e6:.0f}",
            *(
                format_estimate(metrics[name])
                for name in ("accuracy", "balanced_accuracy", "macro_auc", critical)
            ),
        ]
        if versus is None:
            cells += ["–"] * 4
        else:
            cells += [
                versus["parent"],
                format_speedup(row),
                f"{versus['size_ratio']:.2f}×",
                format_estimate(versus["differences"]["balanced_accuracy"], 4),
            ]
        lines.append("| " + " | ".join(cells) + " |")
    if emulated := list_emulated(benchmark["rows"]):
        lines += ["", describe_emulated(emulated)]
    for target, sentences in list_fallbacks(benchmark["rows"]).items():
        lines += ["", f"Fallback of {target}: {'; '.join(sentences)}."]
    return "\n".join(lines) + "\n"


def gates_from_benchmark(benchmark: Mapping[str, Any]) -> str:
    """Return the verdict of each gate on each engine as Markdown."""
    verdicts = read_verdicts(benchmark)
    if not verdicts:
        return "No gate was asked.\n"
    tests = max((verdict.tests or 0 for verdict in verdicts), default=0)
    adjusted = f" Passing is adjusted for {tests} tests (Holm)." if tests else ""
    return (
        f"{describe_outcomes(verdicts)}. A gate passes if the loss is shown to lie within the "
        f"margin, fails if more is shown to be lost; else the test images show neither.{adjusted}"
        "\n\n"
    ) + _table(
        ["gate", "engine", "against", "measured", "one-sided bounds", "verdict"],
        [
            [
                f"`{verdict.gate}`",
                verdict.engine,
                verdict.parent or "–",
                "–" if verdict.measured is None else f"{verdict.measured:z.4f}",
                "–"
                if verdict.low is None or verdict.high is None
                else f"{verdict.low:z.4f}, {verdict.high:z.4f}",
                f"{verdict.outcome.words}{f': {verdict.reason}' if verdict.reason else ''}",
            ]
            for verdict in verdicts
        ],
    )


def operating_points_from_benchmark(benchmark: Mapping[str, Any]) -> str:
    """Return what each engine's frozen threshold gives on test, and its calibration error."""
    point = benchmark["rows"][0]["operating_point"]
    return (
        f"Positive are {', '.join(point['positive'])}, by their summed probability. Threshold and "
        "temperature are chosen for each engine on its own outputs on validation and frozen: the "
        f"threshold of the trained model by the rule `{point['rule']}`, that of an engine so that "
        "it keeps its parent's sensitivity there. AUC, sensitivity, specificity and calibration "
        "errors are those of test.\n\n"
    ) + _table(
        ["engine", "threshold", "on validation", "AUC", "sensitivity", "specificity",
         "sensitivity difference", "calibration error (ECE)", "temperature", "ECE at it"],
        [
            [
                name_row(row),
                f"{row['operating_point']['threshold']:.4g}",
                describe_choice(row["operating_point"]),
                *(
                    format_estimate(row["operating_point"][name])
                    for name in ("auc", "sensitivity", "specificity")
                ),
                format_estimate(_difference(row, "sensitivity"), 4),
                format_estimate(row["metrics"]["expected_calibration_error"]),
                f"{row['temperature']['temperature']:.2f}",
                format_estimate(row["temperature"]["expected_calibration_error"]),
            ]
            for row in benchmark["rows"]
        ],
    )  # fmt: skip


def recalls_from_benchmark(benchmark: Mapping[str, Any]) -> str:
    """Return each engine's recall of each class by arg-max, the critical class first."""
    critical = benchmark["critical"]
    labels = [critical, *(label for label in benchmark["labels"] if label != critical)]
    return _table(
        ["engine", *labels],
        [
            [
                name_row(row),
                *(format_estimate(row["metrics"][f"recall[{label}]"], 2) for label in labels),
            ]
            for row in benchmark["rows"]
        ],
    )


def table_from_external(external: Mapping[str, Any]) -> str:
    """Return the check on images from elsewhere: one row an engine, at its frozen threshold."""
    engines = external["engines"]
    first = next(iter(engines.values()))
    critical = f"recall[{first['critical']}]"
    lesions = (
        f"{first['lesions']} lesions"
        if first["lesion_ids_known"]
        else "unknown lesions, so that each counts as one"
    )
    left_out = sum(first["seen_images"].values())
    return (
        f"{external['name']}: n = {first['n']} images of {lesions}; the thresholds are those "
        "frozen on validation."
        + (f" {left_out} images of lesions seen in training are left out." if left_out else "")
        + "\n\n"
    ) + _table(
        ["engine", "accuracy", "balanced accuracy", critical, "AUC", "sensitivity", "specificity",
         "calibration error (ECE)"],
        [
            [
                target + (" (emulated)" if document.get("emulated_by") else ""),
                *(
                    format_estimate(document["metrics"][name])
                    for name in ("accuracy", "balanced_accuracy", critical)
                ),
                *(
                    format_estimate(document["operating_point"][name])
                    for name in ("auc", "sensitivity", "specificity")
                ),
                format_estimate(document["metrics"]["expected_calibration_error"]),
            ]
            for target, document in engines.items()
        ],
    )  # fmt: skip


def _difference(row: Mapping[str, Any], name: str) -> Mapping[str, float | None] | None:
    versus = row["versus_parent"]
    return None if versus is None else versus["differences"][name]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)
