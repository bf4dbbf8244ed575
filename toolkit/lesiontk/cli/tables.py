"""Tables and figures as text."""

from __future__ import annotations

from collections.abc import Sequence

from lesiontk.bench.benchmark import Benchmark, EngineRow, list_fallbacks, size_facts
from lesiontk.bench.speed import list_noisy
from lesiontk.cli.session import print_text
from lesiontk.errors import escape_controls
from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.evaluate.cross_validation import CrossValidation
from lesiontk.evaluate.evaluation import EngineEvaluation
from lesiontk.evaluate.seeds import SeedComparison
from lesiontk.evaluate.verdict import GateVerdict, describe_outcomes, sort_verdicts
from lesiontk.report import cross_validation, result_table, speed_table
from lesiontk.report.formatting import count_things, format_bytes


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print a table; columns after the first are right-aligned."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(escape_controls(title)) or None, title_justify="left")
    for number, name in enumerate(columns):
        table.add_column(
            escape(escape_controls(name)), justify="right" if number else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(escape(escape_controls(cell)) for cell in row))
    console = Console()
    # A pipe has no width: paths must not be cut or wrapped there.
    (console if console.is_terminal else Console(width=10_000)).print(table)


def format_estimate(estimate: Estimate | None) -> str:
    """Return ``0.812 (0.790–0.834)``, or a dash if unknown."""
    return result_table.format_estimate(estimate, interval="({}–{})")


def print_verdicts(verdicts: Sequence[GateVerdict]) -> None:
    """Print the verdicts of gates, if any."""
    if not verdicts:
        return
    rows = []
    for verdict in verdicts:
        shown = [
            "–" if x is None else f"{x:.4g}" for x in (verdict.measured, verdict.low, verdict.high)
        ]
        rows.append([verdict.engine, verdict.gate, verdict.outcome.words, *shown])
    print_table(
        ["engine", "gate", "verdict", "measured", "lower bound", "upper bound"],
        rows,
        title=f"gates: {describe_outcomes(verdicts)}",
    )


def print_evaluation(evaluation: EngineEvaluation) -> None:
    """Print an evaluation: the metrics, the operating point, the confusion matrix."""
    value = f"value ({evaluation.confidence:.0%} interval)"
    print_table(
        ["metric", value],
        [[name, format_estimate(e)] for name, e in evaluation.metrics.items()],
        title=f"{evaluation.target}: {count_things(evaluation.n, 'image')} of "
        f"{count_things(evaluation.lesions, 'lesion')}",
    )
    point, scaled = evaluation.operating_point, evaluation.temperature
    print_table(
        ["operating point", value],
        [
            ["positive", " + ".join(point.positive)],
            ["threshold", f"{point.threshold:.4g}"],
            ["chosen by", result_table.describe_origin(point)],
            ["sensitivity", format_estimate(point.sensitivity)],
            ["specificity", format_estimate(point.specificity)],
            ["auc", format_estimate(point.auc)],
        ],
    )
    if scaled is not None:
        print_table(
            ["temperature", value],
            [
                ["fitted on validation", f"{scaled.temperature:.3f}"],
                ["calibration error at it", format_estimate(scaled.expected_calibration_error)],
            ],
        )
    names = evaluation.labels
    counts = [[n, *map(str, r)] for n, r in zip(names, evaluation.confusion, strict=True)]
    print_table(["truth \\ prediction", *names], counts)
    if evaluation.subgroups:
        cells = result_table.list_subgroup_cells(evaluation.subgroups)
        print_table(list(result_table.SUBGROUP_COLUMNS), cells)
    print_verdicts(sort_verdicts(evaluation.gate))


def print_benchmark(benchmark: Benchmark) -> None:
    """Print a benchmark: one row per engine, with notes below the table."""
    critical = f"recall[{benchmark.critical}]" if benchmark.critical else "recall"
    rows, sizes = [], size_facts(benchmark.rows)
    for row in benchmark.rows:
        versus = row.versus_parent
        mark = " (fell back)" if row.describe_fallbacks() else ""
        mark += " (noisy)" if list_noisy([row]) else ""
        rows.append(
            [
                f"{row.key}{sizes[row.key]}{' (emulated)' if row.emulated_by else mark}",
                *_describe_cost(row),
                format_estimate(row.metrics.get("balanced_accuracy")),
                format_estimate(row.metrics.get(critical)),
                result_table.format_speedup(row, interval="({}–{})"),
                "–" if versus is None else f"{versus.size_ratio:.2f}×",
            ]
        )
    print_table(
        ["engine", "median ms", "p90 ms", "size", "peak memory", "balanced accuracy", critical,
         "faster", "smaller"],
        rows,
        title=f"one image at a time, {benchmark.threads} thread(s), "
        f"n = {benchmark.rows[0].latency.n} per engine",
    )  # fmt: skip
    _print_speed(benchmark)
    if benchmark.devices:
        columns = result_table.DEVICE_COLUMNS
        print_table(columns, result_table.list_device_cells(benchmark), title="on devices")
    for target, sentences in list_fallbacks(benchmark.rows).items():
        print_text(f"fallback: {target}: {'; '.join(sentences)}")
    print_verdicts(benchmark.verdicts)
    for sentence in benchmark.findings:
        print_text(f"warning: {sentence}.")


def print_cross_validation(result: CrossValidation) -> None:
    """Print a cross-validation: the engines over all folds, differences, and the folds."""
    level = f"{result.confidence:.0%} intervals"
    print_table(
        cross_validation.ENGINE_COLUMNS,
        cross_validation.list_engine_cells(result),
        title=f"{result.recipe}, {len(result.folds)} folds: {count_things(result.images, 'image')} "
        f"of {count_things(result.lesions, 'lesion')}, each tested once ({level})",
    )
    if differences := cross_validation.list_difference_cells(result):
        print_table(
            cross_validation.DIFFERENCE_COLUMNS,
            differences,
            title="difference to full precision, and its spread between folds",
        )
    print_table(
        cross_validation.fold_columns(result),
        cross_validation.list_fold_cells(result, "balanced_accuracy"),
        title="balanced accuracy of each fold",
    )


def print_seeds(comparison: SeedComparison) -> None:
    """Print a comparison of seeds: the trainings, mean and standard deviation, the best."""
    spread = comparison.spread
    rows = [
        [str(r.seed), r.model, str(r.best_epoch), *(f"{r.metrics[name]:.3f}" for name in spread)]
        for r in comparison.results
    ]
    mean = [f"{s.mean:.3f} ± {s.deviation:.3f}" for s in spread.values()]
    print_table(
        ["seed", "model", "best epoch", *spread],
        [*rows, ["mean ± standard deviation", "", "", *mean]],
        title=f"{comparison.recipe}, on {count_things(comparison.n, 'validation image')}",
    )
    print_text(f"best on validation: seed {comparison.best}")


def _print_speed(benchmark: Benchmark) -> None:
    """Print the scenarios, the path from file to answer, and the machine's state."""
    if scenarios := speed_table.list_scenario_cells(benchmark):
        print_table(speed_table.SCENARIO_COLUMNS, scenarios, title="scenarios")
    if path := speed_table.list_path_cells(benchmark):
        title = f"from file to answer: {speed_table.describe_pictures(benchmark)}"
        print_table(speed_table.PATH_COLUMNS, path, title=title)
    if roofline := speed_table.list_roofline_cells(benchmark):
        print_table(speed_table.ROOFLINE_COLUMNS, roofline, title="roofline, single stream")
        print_text(speed_table.describe_peaks(benchmark))
    for row in benchmark.rows:
        if row.profile is not None:
            cells = speed_table.list_layer_cells(row.profile)
            print_table(speed_table.LAYER_COLUMNS, cells, title=f"layers of {row.key}")
            print_text(speed_table.describe_profile(row.profile))
    for sentence in speed_table.describe_conditions(benchmark):
        print_text(sentence)


def _describe_cost(row: EngineRow) -> list[str]:
    """Return median, p90, size and peak memory; dashes for what emulation cannot measure."""
    size, memory = format_bytes(row.size_bytes), row.peak_memory_bytes
    if row.emulated_by or memory is None:
        return ["–", "–", size, "–"]
    latency = map(result_table.format_ms, (row.latency.median, row.latency.p90))
    return [*latency, size, format_bytes(memory)]
