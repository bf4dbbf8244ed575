"""The grammar of gates: what is written is what is read, and nothing else is accepted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesiontk.errors import UsageError
from lesiontk.recipe.gate_grammar import (
    AT_PARENT_SPECIFICITY,
    DEVICE,
    OF_POSITIVE,
    Gate,
    check_metric,
    gate_metrics,
    name_group,
    parse_gate,
    parse_gates,
    translate_mapping,
)
from lesiontk.recipe.metric import METRICS, list_per_label

SEVEN = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
MALIGNANT = ("akiec", "bcc", "mel")
BOUNDED = st.floats(0, 1)
CONFIDENCES = st.floats(0.5, 1, exclude_min=True, exclude_max=True)
LABELS = st.text("abcé ()-_.,/1ß@>=+", min_size=1, max_size=9)
OF_LABEL = (*list_per_label(), *OF_POSITIVE)  # imported here: hypothesis times the first draw


@st.composite
def gates(draw: st.DrawFn) -> Gate:
    kind = draw(st.sampled_from((*METRICS, *OF_POSITIVE, *DEVICE)))
    label = ""
    if kind in OF_LABEL:
        label = f"[{draw(LABELS.map(str.strip).filter(bool))}]"
    relative = kind not in DEVICE and (kind == AT_PARENT_SPECIFICITY or draw(st.booleans()))
    unbounded = kind in DEVICE or kind in ("log_loss", "brier")
    limit = draw(st.floats(0, 1e12) if unbounded else BOUNDED)
    confidence = draw(CONFIDENCES if relative else st.none() | CONFIDENCES)
    return Gate(kind + label, limit, relative, confidence)


@given(gates())
def test_a_written_gate_is_read_as_it_was(gate: Gate) -> None:
    assert parse_gate(str(gate)) == gate


@given(gates())
def test_another_limit_is_another_gate(gate: Gate) -> None:
    """The twin of the test above: its comparison sees the number."""
    other = Gate(gate.metric, gate.limit / 2 + 0.25, gate.relative, gate.confidence)
    assert (parse_gate(str(other)) == gate) == (other.limit == gate.limit)


@given(st.text(max_size=250))
def test_garbage_is_a_usage_error_and_nothing_else(text: str) -> None:
    with pytest.raises(UsageError):
        parse_gate(text)


WORDS = st.sampled_from(
    ("parent", ">=", "<=", "@", "-", "+", "0.95", "1e999", "macro_auc", "recall[mel]", "p90_ms",
     "recall", "[", "]", " ", "20", "nan", "inf", ".", "1_0", "٣")
)  # fmt: skip


@given(st.lists(WORDS, max_size=9))
def test_words_in_any_order_are_a_gate_or_a_usage_error(words: list[str]) -> None:
    text = " ".join(words)
    try:
        gate = parse_gate(text)
    except UsageError:
        return
    assert parse_gate(str(gate)) == gate


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("macro_auc >= parent - 0.01 @ 0.95", Gate("macro_auc", 0.01, True, 0.95)),
        ("log_loss<=parent+.05@0.9", Gate("log_loss", 0.05, True, 0.9)),
        ("balanced_accuracy >= 0.70 @ 0.95", Gate("balanced_accuracy", 0.7, False, 0.95)),
        (" recall[ mel ] >= 0.8 ", Gate("recall[mel]", 0.8)),
        ("p90_ms <= 20", Gate("p90_ms", 20)),
        ("size_mb <= 5", Gate("size_mb", 5)),
    ],
)
def test_the_forms_of_a_gate(text: str, gate: Gate) -> None:
    assert parse_gate(text) == gate


@pytest.mark.parametrize(
    ("text", "why", "under"),
    [
        ("macro_acu >= 0.9", "Did you mean 'macro_auc'", "m"),
        ("recal[mel] >= 0.9", "Did you mean 'recall'", "r"),
        ("recall >= 0.9", r"expected the class in brackets, as in recall\[mel\]", "r"),
        ("macro_auc[mel] >= 0.9", "not a metric of a single class", "m"),
        ("macro_auc <= 0.9", "higher is better; expected `>=`", "<"),
        ("log_loss >= parent - 0.1 @ 0.95", "lower is better; expected `<=`", ">"),
        ("p90_ms <= parent + 1 @ 0.95", "expected a number", "p"),
        ("macro_auc >= father - 0.1 @ 0.95", "expected `parent` or a number", "f"),
        ("macro_auc >= parent + 0.1 @ 0.95", "expected `-` and the margin", "+"),
        ("macro_auc >= parent - x @ 0.95", "expected the margin", "x"),
        ("macro_auc >= parent - 1.5 @ 0.95", "ranges from 0 to 1", "1"),
        ("macro_auc >= parent - 0.1 @ 95", "a confidence above 0.5 and below 1", "9"),
        ("macro_auc >= parent - 0.1 @ 0.95 !", "expected the end", "!"),
        (f"{AT_PARENT_SPECIFICITY}[malignant] >= 0.8 @ 0.95", "expected `parent`", "0"),
    ],
)
def test_an_error_shows_where_and_what_is_meant(text: str, why: str, under: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        parse_gate(text)
    _, line, caret = str(caught.value).rsplit("\n", 2)
    assert line.strip() == text
    assert line[caret.index("^")] == under


def test_a_point_estimate_of_a_difference_is_refused_with_the_reason() -> None:
    with pytest.raises(
        UsageError,
        match=r"point estimate of a difference is unreliable .* as `@ "
        r"0\.95`",
    ):
        parse_gate("balanced_accuracy >= parent - 0.01")
    assert parse_gate("balanced_accuracy >= parent - 0.01 @ 0.95").confidence == 0.95


def test_two_gates_on_one_metric_are_refused() -> None:
    with pytest.raises(UsageError, match="two gates limit p90_ms"):
        parse_gates(["p90_ms <= 20", "p90_ms <= 30"])
    assert len(parse_gates(["macro_auc >= 0.9", "macro_auc >= parent - 0.01 @ 0.95"])) == 2


def test_a_metric_that_the_task_lacks_names_the_nearest() -> None:
    gate = parse_gate("recall[melanoma] >= 0.8")
    with pytest.raises(UsageError, match=r"the task seven_class has .* Did you mean 'recall\[mel"):
        check_metric(gate, "seven_class", SEVEN, MALIGNANT)
    check_metric(parse_gate("recall[mel] >= 0.8"), "seven_class", SEVEN, MALIGNANT)


@pytest.mark.parametrize(
    ("positive", "names"),
    [
        (MALIGNANT, ("malignant", "positive")),
        (("malignant",), ("malignant", "positive")),
        (("inflamed",), ("inflamed", "positive")),
        (("inflamed", "scarred"), ("positive",)),
    ],
)
def test_the_positive_labels_have_a_name_together(
    positive: tuple[str, ...], names: tuple[str, ...]
) -> None:
    assert name_group(positive) == names
    known = gate_metrics((*positive, "rest"), positive)
    assert f"sensitivity[{names[0]}]" in known
    assert len(known) == len(set(known))


def test_the_mapping_of_before_is_said_in_new_lines() -> None:
    old = {"balanced_accuracy": {"max_drop": 0.01}, "recall[mel]": {"max_drop": 0.02,
                                                                   "confidence": 0.9}}  # fmt: skip
    assert translate_mapping(old) == (
        '["balanced_accuracy >= parent - 0.01 @ 0.95", "recall[mel] >= parent - 0.02 @ 0.9"]'
    )
    assert translate_mapping({"sensitivity": {"max_drop": 0.1}}) == (
        '["sensitivity[positive] >= parent - 0.1 @ 0.95"]'
    )
