"""Names and sentences of the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lesiontk.backends import BACKENDS, parse_target
from lesiontk.backends.backend import Quantization
from lesiontk.bench.benchmark import (
    FULL_PRECISION,
    Benchmark,
    EngineRow,
    ParentComparison,
)
from lesiontk.bench.findings import critical_recalls
from lesiontk.evaluate.findings import CriticalRecall
from lesiontk.evaluate.verdict import Outcome
from lesiontk.models.architecture import InitialWeights
from lesiontk.records import ModelFacts
from lesiontk.report.formatting import (
    DASH,
    count_things,
    format_bytes,
    format_latency,
    format_level,
    format_number,
    format_ratio,
    points_estimate,
    share_estimate,
)
from lesiontk.stage import EngineName

LABEL_NAMES = {
    "akiec": "actinic keratosis, intraepithelial carcinoma",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "melanocytic nevus",
    "vasc": "vascular lesion",
    "malignant": "malignant lesions",
    "benign": "benign lesions",
}
_METRIC_WORDS = {"auc": "AUC", "f1": "F1", "brier": "Brier score"}

NO_REASON = "no reason was recorded"


def name_label(label: str) -> str:
    """Return the full name of a label, or the label itself."""
    return LABEL_NAMES.get(label, label)


def name_backend(backend: str) -> str:
    """Return the official name of a back end; its id if no plugin here has it."""
    return BACKENDS.get(backend).info.title or backend if backend in BACKENDS else backend


def name_recall(label: str) -> str:
    """Return ``melanoma recall``, ``recall of malignant lesions``."""
    return "melanoma recall" if label == "mel" else f"recall of {name_label(label)}"


def name_metric(metric: str) -> str:
    """Return a metric's name in words: ``recall[mel]`` is ``melanoma recall``."""
    kind, _, label = metric.rstrip("]").partition("[")
    if kind == "recall" and label:
        return name_recall(label)
    words = " ".join(_METRIC_WORDS.get(word, word) for word in kind.split("_"))
    return f"{words} of {label}" if label else words


def name_engine(target: str) -> str:
    """Return ``int8 TFLite`` for ``tflite:int8``."""
    name = EngineName(target)
    backend, _, precision = name.target.partition(":")
    whose = " of the network before compression" if name.reference else ""
    return f"{precision} {name_backend(backend)}{whose}"


def explain_float_operator(entry: str, target: str) -> str:
    """Return why an operator such as ``SOFTMAX -> name`` stayed in float in an engine."""
    backend, precision = parse_target(EngineName(target).target)
    return BACKENDS.get(backend)().explain_float_operator(entry, precision) or NO_REASON


def group_float_operators(entries: Sequence[str], target: str) -> tuple[tuple[str, str], ...]:
    """Return the operators in float with the reason: each one, or a type with their number."""
    kinds = Counter(entry.split()[0] for entry in entries if entry.split())
    groups: dict[str, str] = {}
    for entry in entries:
        kind = entry.split()[0] if entry.split() else ""
        shown = entry if kinds[kind] <= 2 else f"{kind} ({kinds[kind]})"
        groups[shown] = explain_float_operator(entry, target)
    return tuple(groups.items())


def describe_quantization(made: Quantization) -> str:
    """Return the quantization of an engine as text."""
    parts = []
    if made.weight_bits:
        reduced = " (reduced range, for CPUs without VNNI)" if made.weight_bits == 7 else ""
        parts.append(f"{made.weight_bits}-bit weights{reduced}")
    if made.activation_bits:
        parts.append(f"{made.activation_bits}-bit activations")
    if made.float_layers is not None:
        half = made.float16_layers or 0
        kept = {"float16": half, "float32": made.float_layers - half}
        kinds = [f"{n} layer{'s'[: n > 1]} in {name}" for name, n in kept.items() if n]
        parts += kinds or ["no layer in float"]
    if made.corrected_biases:
        parts.append(f"{made.corrected_biases} biases corrected")
    if made.otherwise_than_trained:
        parts.append(made.otherwise_than_trained)
    return ", ".join(parts)


def describe_initial_weights(model: ModelFacts, stated: str) -> str:
    """Return what training started from: `stated` in the recipe, and the file that it was."""
    first = model.line[0]
    if first.stage != "train" or not first.change:
        return stated
    file = first.read_change(InitialWeights)
    package = [f"{file.package} {file.version}"] if file.package else []
    return ", ".join([stated, *package, f"SHA-256 {file.sha256[:12]}"])


def describe_best(model: ModelFacts) -> str:
    """Return the criterion of the best epoch of a model's last training."""
    kept, best = describe_recall_constraint(model), "the best by validation balanced accuracy"
    return f"{best} {kept}," if kept else best


def describe_recall_constraint(model: ModelFacts) -> str:
    """Return the recall constraint of a compressed model as text; empty for others."""
    kept, critical = model.recall_constraint, model.critical
    if kept is None:
        return ""
    raised = [f"{label} by {shift:.2f}" for label, shift in kept.bias_raised.items()]
    others = " and, if that increases balanced accuracy, no less recall of another class"
    how = f", for which biases were raised: {', '.join(raised)}"
    return (
        f"at no less {name_recall(critical)} than the {kept.wanted[critical]:.3f} of the trained "
        f"network{others if len(kept.wanted) > 1 else ''}{how if raised else ''}"
    )


def shorten_name(name: str, characters: int = 44) -> str:
    """Return a tensor's name, a long one without its middle."""
    half = (characters - 1) // 2
    return name if len(name) <= characters else f"{name[:half]}…{name[-half:]}"


def summarize_run(benchmark: Benchmark) -> tuple[str, ...]:
    """Return a sentence for each engine of reduced precision, in order of importance.

    Without such an engine there is one sentence, about the fastest.
    """
    rows = order_by_importance(benchmark)
    critical = benchmark.critical
    reduced = [row for row in rows if row.is_reduced]
    if reduced:
        return tuple(summarize_engine(row, critical) for row in reduced)
    return (_summarize_full_precision(rows, critical),)


def order_by_importance(benchmark: Benchmark) -> list[EngineRow]:
    """Return the rows: reduced precision first, then by their gates, then the faster.

    Engines that passed all gates come before those with a gate that is not shown, and these before
    those that failed one.
    """
    worst: dict[str, int] = {}
    for verdict in benchmark.verdicts:
        rank = (Outcome.PASSED, Outcome.NOT_SHOWN, Outcome.FAILED).index(verdict.outcome)
        worst[verdict.engine] = max(rank, worst.get(verdict.engine, 0))
    return sorted(
        benchmark.rows,
        key=lambda row: (
            not row.is_reduced, worst.get(row.key, 0), *_rank_speed(row),
        ),
    )  # fmt: skip


def _rank_speed(row: EngineRow) -> tuple[bool, float]:
    """Return the sort key: emulated engines last, in the order of measurement."""
    emulated = row.emulated_by is not None
    return emulated, 0.0 if emulated else row.latency.median


def summarize_engine(row: EngineRow, critical: str) -> str:
    """Return one sentence on an engine against its parent, computed from its benchmark row."""
    engine, versus = name_engine(row.key), row.versus_parent
    emulator = row.emulated_by
    if versus is None:
        cost = (
            f"was emulated by {emulator}, so its latency is unknown; it"
            if emulator
            else f"has a latency of {format_latency(row.latency.median)} and"
        )
        return (
            f"The {engine} engine {cost} takes {format_bytes(row.size_bytes)}; "
            f"{_state_scores(row, critical)}. No full-precision parent was measured."
        )
    size, size_joint = _compare_ratio(versus.size_ratio, "smaller", "larger", "large")
    parent, change = _name_parent(row, versus), _describe_change(versus, critical)
    if emulator or versus.speedup is None:
        emulated = f"was emulated by {emulator}" if emulator else "has an emulated parent"
        return (
            f"The {engine} engine {emulated}, so its latency is unknown; it is {size} {size_joint} "
            f"{parent}; as emulated, {change}."
        )
    speed, joint = describe_speed(versus)
    compared = f"{speed} and {size} {size_joint} {parent}"
    if joint != size_joint:
        compared = f"{speed} {joint}, and {size} {size_joint}, {parent}"
    return f"The {engine} engine is {compared}; {change}."


def _name_parent(row: EngineRow, versus: ParentComparison) -> str:
    """Return the name of a row's parent, with a note if it has another runtime."""
    parent = name_engine(versus.parent_name)
    if row.has_own_parent:
        return f"its parent, {parent}"
    wanted = f"{FULL_PRECISION} {name_backend(row.backend)}"
    return f"its parent, {parent}, which has another runtime (there is no {wanted})"


def describe_speed(versus: ParentComparison) -> tuple[str, str]:
    """Return the speed of an engine against its parent, and the joining word for the parent's name.

    For example ``2.78× faster (95 % interval 2.73–2.84)`` and ``than``.
    """
    if versus.speedup is None:
        raise ValueError("an emulated engine has no latency")
    words, joint = _compare_ratio(versus.speedup, "faster", "slower", "fast")
    ends = versus.speedup_interval
    if ends is None:
        return words, joint
    low, high = ends
    interval = f"{format_level(versus.confidence)} interval "
    if low <= 1 <= high and (low < 0.98 or high > 1.02):
        words, joint = "not shown to be faster or slower", "than"
        interval = f"{format_ratio(versus.speedup)}, {interval}"
    elif versus.speedup < 0.98:  # reported as slower by the inverse ratio
        low, high = 1 / high, 1 / low
    return f"{words} ({interval}{format_number(low)}–{format_number(high)})", joint


def compare_speed(versus: ParentComparison) -> str:
    """Return `describe_speed` with its joining word."""
    return " ".join(describe_speed(versus))


def compare_size(size_ratio: float) -> str:
    """Return ``3.82× smaller than``, ``1.50× larger than`` or ``practically as large as``."""
    return " ".join(_compare_ratio(size_ratio, "smaller", "larger", "large"))


def _compare_ratio(ratio: float, more: str, less: str, equal: str) -> tuple[str, str]:
    """Return the comparison; a difference within 2 % counts as equal."""
    if ratio > 1.02:
        return f"{format_ratio(ratio)} {more}", "than"
    if ratio < 0.98:
        return f"{format_ratio(1 / ratio)} {less}", "than"
    return f"practically as {equal}", "as"


def describe_found(recall: CriticalRecall) -> str:
    """Return ``finds 1 of 12 images of melanoma by the highest probability (8.3 %, …)``."""
    return recall.describe(name_label)


def describe_critical(benchmark: Benchmark, row: EngineRow) -> str:
    """Return the images of the critical class that an engine finds, and that its parent finds."""
    recalls = critical_recalls(benchmark)
    own_recall = recalls[row.key]
    text = f"The engine {describe_found(own_recall)}"
    parent = recalls.get(row.versus_parent.parent_name) if row.versus_parent else None
    if parent is not None and own_recall.images:
        text += f"; its parent finds {parent.found}"
    return f"{text}."


def describe_at_threshold(row: EngineRow) -> str:
    """Return the sensitivity of an engine at its threshold, as a sentence."""
    point = row.point
    found = share_estimate(point.sensitivity)
    if point.sensitivity.value is None:
        return "No image is positive, so the frozen threshold cannot be tested."
    interval = f" (interval {found.interval})" if found.interval else ""
    return (
        f"At its frozen threshold, {point.threshold:.3g}, the engine predicts "
        f"{found.value}{interval} of the {count_things(point.positives, 'image')} of "
        f"{' + '.join(point.positive)} positive{_describe_at_parents_threshold(row)}."
    )


def _describe_at_parents_threshold(row: EngineRow) -> str:
    """Return the difference of sensitivity to its parent at the parent's threshold, as text."""
    versus = row.versus_parent
    change = points_estimate(versus.differences.get("sensitivity") if versus else None)
    if change.value == DASH:
        return ""
    interval = f" ({change.interval})" if change.interval else ""
    return f", {change.value} points{interval} against its parent at the parent's threshold"


def _describe_change(versus: ParentComparison, critical: str) -> str:
    judged = f"{versus.n} test images of {versus.lesions} lesions"
    recall = versus.differences.get(f"recall[{critical}]")
    level = f"{format_level(versus.confidence)} interval"
    known = recall is not None and recall.value is not None
    change = points_estimate(recall)
    if not versus.changed:
        text = f"none of the {judged} changes its most probable class"
        if not known:
            return f"{text}, and {name_recall(critical)} cannot be tested"
        if not change.interval:
            return text
        return f"{text}, which leaves {name_recall(critical)} {change.interval} points ({level})"
    balanced = points_estimate(versus.differences["balanced_accuracy"])
    text = f"balanced accuracy changes by {balanced.value} points"
    if balanced.interval:
        text += f" ({level} {balanced.interval})"
    if not known:
        text += f", {name_recall(critical)} cannot be tested"
    else:
        text += f", {name_recall(critical)} by {change.value} points"
        text += f" ({change.interval})" if change.interval else ""
    count = len(versus.changed)
    return f"{text}; {count} of {judged} {'changes' if count == 1 else 'change'} class"


def _summarize_full_precision(rows: Sequence[EngineRow], critical: str) -> str:
    timed = [row for row in rows if not row.emulated_by]
    row = min(timed or rows, key=lambda row: row.latency.median)
    engine, size = name_engine(row.key), format_bytes(row.size_bytes)
    scores = _state_scores(row, critical)
    if not timed:
        return (
            f"The {engine} engine was emulated by {row.emulated_by}, so its latency is unknown; it "
            f"takes {size}; {scores}."
        )
    latency = format_latency(row.latency.median)
    if len(rows) == 1:
        return (
            f"The {engine} engine has a latency of {latency} and takes {size}; {scores}. There "
            "is no "
            "engine of reduced precision in this report."
        )
    engines = "Both" if len(rows) == 2 else f"All {len(rows)}"
    return (
        f"{engines} engines are in full precision; the fastest that ran, {engine}, has a latency "
        f"of {latency} and takes {size}; {scores}."
    )


def _state_scores(row: EngineRow, critical: str) -> str:
    balanced = share_estimate(row.metrics["balanced_accuracy"])
    recall = share_estimate(row.metrics[f"recall[{critical}]"])
    text = f"balanced accuracy is {balanced.value}"
    text += f" ({balanced.interval})" if balanced.interval else ""
    if row.metrics[f"recall[{critical}]"].value is None:
        return f"{text}, {name_recall(critical)} cannot be tested"
    text += f", {name_recall(critical)} {recall.value}"
    text += f" ({recall.interval})" if recall.interval else ""
    return f"{text}, n = {row.n}"
