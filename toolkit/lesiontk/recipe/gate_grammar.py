"""The one-line grammar of acceptance gates, in recipes and on the command line.

    METRIC >= parent - MARGIN @ CONFIDENCE    the loss against the parent is within the margin
    METRIC <= parent + MARGIN @ CONFIDENCE    the same where lower is better, as of log_loss
    METRIC >= VALUE [@ CONFIDENCE]            an absolute bound; `<=` where lower is better
    FIGURE <= VALUE                           p90_ms, median_ms, size_mb, peak_memory_mb

A metric of one class contains its label, as ``recall[mel]``. The text of a parsed gate parses to an
equal gate.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import NoReturn

from lesiontk.errors import UsageError, suggest
from lesiontk.recipe.metric import METRICS, list_per_label, list_plain

DEFAULT_GATES = "default"
"""The entry of a recipe's list that expands to the gates of its task."""

AT_PARENT_SPECIFICITY = "sensitivity_at_parent_specificity"
OF_POSITIVE = ("sensitivity", AT_PARENT_SPECIFICITY, "specificity", "auc")
"""Metrics of the task's positive labels together, by their summed probability."""
DEVICE = {"p90_ms": "ms", "median_ms": "ms", "size_mb": "MB", "peak_memory_mb": "MB"}
"""Figure -> unit; a megabyte is 1,000,000 bytes."""

POSITIVE, MALIGNANT = "positive", "malignant"
MALIGNANT_LABELS = frozenset({"akiec", "bcc", "mel", "scc", MALIGNANT})

_NUMBER = r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?"
_TOKEN = re.compile(
    rf"\s*(?:(?P<number>{_NUMBER})|(?P<name>[A-Za-z]\w*(?:\[[^\[\]]*\])?)|(?P<sign>>=|<=|[-+@]))"
)


@dataclass(frozen=True, slots=True)
class Gate:
    """A parsed gate. `limit` is the margin where `relative`, else the bound of the metric."""

    metric: str
    limit: float
    relative: bool = False
    confidence: float | None = None

    @property
    def kind(self) -> str:
        """The metric without its label: ``recall`` of ``recall[mel]``."""
        return self.metric.partition("[")[0]

    @property
    def label(self) -> str:
        """The label in brackets; empty without one."""
        return self.metric.partition("[")[2].rstrip("]")

    @property
    def of_device(self) -> bool:
        """Whether this is a bound of latency, size or memory."""
        return self.kind in DEVICE

    @property
    def lower_is_better(self) -> bool:
        """Whether smaller values are better."""
        return self.of_device or (self.kind in METRICS and METRICS.get(self.kind).lower_is_better)

    @property
    def lies_in_unit(self) -> bool:
        """Whether the metric is in 0 to 1."""
        if self.of_device:
            return False
        return self.kind not in METRICS or METRICS.get(self.kind).cost_of_nothing is None

    def __str__(self) -> str:
        """Return the gate in the grammar, in one spelling."""
        sign, margin = ("<=", "+") if self.lower_is_better else (">=", "-")
        against = f"parent {margin} " if self.relative else ""
        confidence = "" if self.confidence is None else f" @ {_format_number(self.confidence)}"
        return f"{self.metric} {sign} {against}{_format_number(self.limit)}{confidence}"


def parse_gate(text: str) -> Gate:
    """Return the gate of one line. Raises `UsageError` with a caret under the fault."""
    return _Parser(text).parse()


def parse_constraint(text: str) -> Gate:
    """Return the gate that a search applies to measured values, without a confidence.

    A search compares many candidates on the same images, so a test of each at a confidence would
    not be valid for the chosen one. Raises `UsageError` as `parse_gate`.
    """
    return _Parser(text, tested=False).parse()


def parse_gates(texts: Sequence[str]) -> tuple[Gate, ...]:
    """Return the gates of several lines. Raises `UsageError` for two of one kind on a metric."""
    gates = tuple(map(parse_gate, texts))
    for number, gate in enumerate(gates):
        for earlier in gates[:number]:
            if (earlier.metric, earlier.relative) == (gate.metric, gate.relative):
                raise UsageError(
                    f"two gates limit {gate.metric}: `{earlier}` and `{gate}`; expected one."
                )
    return gates


def gate_metrics(labels: Sequence[str], positive: Sequence[str]) -> tuple[str, ...]:
    """Return the metrics and figures of gates for a task with these labels."""
    per_label = tuple(f"{kind}[{label}]" for kind in list_per_label() for label in labels)
    groups = [f"{kind}[{name}]" for kind in OF_POSITIVE for name in name_group(positive)]
    known = (*list_plain(), *per_label, *groups, *DEVICE)
    return tuple(dict.fromkeys(known))


def name_group(positive: Sequence[str]) -> tuple[str, ...]:
    """Return the names for a task's positive labels together, the preferred one first."""
    names = [MALIGNANT] if set(positive) <= MALIGNANT_LABELS else []
    return tuple(dict.fromkeys([*names, *(positive if len(positive) == 1 else ()), POSITIVE]))


def is_of_positive(gate: Gate, positive: Sequence[str]) -> bool:
    """Return whether a gate concerns the positive labels together, at the frozen threshold."""
    return gate.kind in OF_POSITIVE and gate.label in name_group(positive)


def check_metric(gate: Gate, task: str, labels: Sequence[str], positive: Sequence[str]) -> None:
    """Raise `UsageError` with the nearest name for a metric that the task does not have."""
    known = gate_metrics(labels, positive)
    if gate.metric not in known:
        raise UsageError(
            f"gate `{gate}` names the metric {gate.metric!r}; the task {task} has "
            f"{', '.join(known)}.{suggest(gate.metric, known)}"
        )


def translate_mapping(gates: dict[object, object]) -> str:
    """Return the gate lines equivalent to the mapping of earlier versions, where possible."""
    lines = []
    for metric, rule in gates.items():
        rule = rule if isinstance(rule, dict) else {}
        confidence = rule.get("confidence") or 0.95
        name = f"{metric}[{POSITIVE}]" if metric in ("sensitivity", "specificity") else metric
        lines.append(f'"{name} >= parent - {rule.get("max_drop", 0.01)} @ {confidence}"')
    return f"[{', '.join(lines)}]"


def _format_number(value: float) -> str:
    return repr(float(value)).removesuffix(".0")


class _Parser:
    """A left-to-right parser of one line that tracks its position for the caret."""

    def __init__(self, text: str, *, tested: bool = True) -> None:
        self.text = text
        self.tested = tested
        self.at = 0
        self.start = 0

    def parse(self) -> Gate:
        if "\n" in self.text or "\r" in self.text or len(self.text) > 200:
            raise UsageError(
                f"a gate is {len(self.text)} characters long; expected one line of at most 200."
            )
        metric = self._read_metric()
        gate = Gate(metric, 0.0)
        self._read_sign(gate)
        relative, limit = self._read_limit(gate)
        confidence = self._read_confidence()
        if confidence is not None and not self.tested:
            self._refuse(
                "a search compares measured values of many candidates, for which a confidence "
                "would not hold; expected the constraint without `@`",
                self.text.rindex("@"),
            )
        if relative and confidence is None and self.tested:
            self._refuse(
                "the point estimate of a difference is unreliable on few lesions; expected a "
                "confidence, such as `@ 0.95`",
                len(self.text.rstrip()),
            )
        return Gate(metric, limit, relative, confidence)

    def _next(self) -> tuple[str, str]:
        """Return the kind and text of the next token and advance past it."""
        rest = self.text[self.at :]
        self.start = self.at + len(rest) - len(rest.lstrip())
        if not rest.strip():
            return "end", ""
        match = _TOKEN.match(self.text, self.at)
        if match is None or match.lastgroup is None:
            return "character", self.text[self.start]
        self.at = match.end()
        return match.lastgroup, match[match.lastgroup]

    def _read_metric(self) -> str:
        kind, name = self._next()
        bare, bracket, label = name.partition("[")
        plain = (*list_plain(), *DEVICE)
        labelled = tuple(dict.fromkeys((*list_per_label(), *OF_POSITIVE)))
        if kind != "name" or bare not in (*plain, *labelled):
            known = ", ".join([*plain, *(f"{metric}[LABEL]" for metric in labelled)])
            self._refuse(f"expected a metric ({known}){suggest(bare, (*plain, *labelled))}")
        if bare in plain and bracket:
            self._refuse(f"{bare} is not a metric of a single class; expected it without brackets")
        if bare in labelled and not label.rstrip("]").strip():
            example = "malignant" if bare in OF_POSITIVE else "mel"
            self._refuse(
                f"{bare} is a metric of one class; expected the class in brackets, as "
                f"in {bare}[{example}]"
            )
        return f"{bare}[{label.rstrip(']').strip()}]" if bracket else bare

    def _read_sign(self, gate: Gate) -> None:
        expected = "<=" if gate.lower_is_better else ">="
        _, sign = self._next()
        if sign in (">=", "<=") and sign != expected:
            better = "lower" if gate.lower_is_better else "higher"
            self._refuse(f"for {gate.metric}, {better} is better; expected `{expected}`")
        if sign != expected:
            self._refuse(f"expected `{expected}`")

    def _read_limit(self, gate: Gate) -> tuple[bool, float]:
        kind, word = self._next()
        if kind == "number" and gate.kind != AT_PARENT_SPECIFICITY:
            return False, self._check_number(word, gate)
        if word != "parent" or gate.of_device:
            what = "`parent` or a number"
            if gate.of_device or gate.kind == AT_PARENT_SPECIFICITY:
                what = "a number" if gate.of_device else "`parent`"
            self._refuse(f"expected {what}")
        expected = "+" if gate.lower_is_better else "-"
        kind, sign = self._next()
        if sign != expected:
            self._refuse(f"expected `{expected}` and the margin, as in `parent {expected} 0.02`")
        kind, word = self._next()
        if kind != "number":
            self._refuse("expected the margin, a number of at least 0")
        return True, self._check_number(word, gate)

    def _check_number(self, word: str, gate: Gate) -> float:
        value = float(word)
        if not isfinite(value):
            self._refuse("expected a finite number")
        if gate.lies_in_unit and value > 1:
            self._refuse(f"{gate.metric} ranges from 0 to 1; expected a number in that range")
        return value

    def _read_confidence(self) -> float | None:
        kind, sign = self._next()
        if kind == "end":
            return None
        if sign != "@":
            self._refuse("expected `@` and the confidence, or the end of the gate")
        kind, word = self._next()
        confidence = float(word) if kind == "number" else 0.0
        if not 0.5 < confidence < 1:
            self._refuse("expected a confidence above 0.5 and below 1, such as 0.95")
        at = self.start
        kind, word = self._next()
        if kind != "end":
            self._refuse("expected the end of the gate")
        self.start = at
        return confidence

    def _refuse(self, why: str, at: int | None = None) -> NoReturn:
        place = self.start if at is None else at
        shown = "".join(letter if letter.isprintable() else " " for letter in self.text)
        raise UsageError(f"gate not understood: {why}.\n  {shown}\n  {' ' * place}^")
