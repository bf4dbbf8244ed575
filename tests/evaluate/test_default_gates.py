"""The default gates follow the task, and the documented margins are those that are used."""

from __future__ import annotations

from pathlib import Path

import pytest

from lesiontk.data.tasks import load_task
from lesiontk.errors import UsageError
from lesiontk.evaluate.default_gates import DEFAULTS, check_gates_of_task, expand_gates
from lesiontk.evaluate.search_criterion import choose_criteria, list_guiding
from lesiontk.recipe import list_recipes, read_recipe
from lesiontk.recipe.gate_grammar import parse_gates

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("positive", "label"),
    [(("akiec", "bcc", "mel"), "malignant"), (("inflamed",), "inflamed"), (("a", "b"), "positive")],
)
def test_defaults_are_of_the_positive_labels_of_the_task(
    positive: tuple[str, ...], label: str
) -> None:
    gates = expand_gates(["default"], positive)
    assert f"sensitivity_at_parent_specificity[{label}] >= parent - 0.05 @ 0.95" in gates
    check_gates_of_task(["default"], "own", (*positive, "rest"), positive)


def test_a_line_of_ones_own_takes_the_place_of_the_default() -> None:
    own = "macro_auc >= parent - 0.02 @ 0.95"
    gates = expand_gates(["default", own, "p90_ms <= 20"], ("mel",))
    assert [gate for gate in gates if gate.startswith("macro_auc")] == [own]
    assert len(gates) == len(DEFAULTS) + 1
    assert expand_gates([own], ("mel",)) == (own,)
    assert expand_gates([], ("mel",)) == ()


def test_every_default_is_a_gate_that_parses_back() -> None:
    lines = expand_gates(["default"], ("mel",))
    assert tuple(map(str, parse_gates(lines))) == lines


def test_the_documented_margins_are_those_that_are_used() -> None:
    page = (ROOT / "docs" / "gates.md").read_text()
    for default in DEFAULTS:
        assert f"| `{default.metric}` | {default.margin} | {default.why} |" in page
    assert page.count("\n| `") == len(DEFAULTS)


@pytest.mark.parametrize("name", list_recipes())
def test_the_gates_of_a_shipped_recipe_are_of_its_task(name: str) -> None:
    recipe = read_recipe(name)
    task = load_task(recipe.data.task)
    check_gates_of_task(recipe.gate, task.name, task.labels, task.positive)


def test_a_gate_of_another_task_is_refused() -> None:
    with pytest.raises(UsageError, match=r"names the metric 'recall\[mel\]'"):
        check_gates_of_task(["recall[mel] >= 0.5"], "own", ("a", "b"), ("a",))


def test_a_search_is_guided_by_what_a_threshold_does_not_decide() -> None:
    entries = ["default", "p90_ms <= 20", "recall[mel] >= 0.5"]
    assert list_guiding(entries) == ("default", "recall[mel] >= 0.5")
    criteria = choose_criteria(expand_gates(entries, ("mel",)), ("mel",))
    assert [line.split()[0] for line in criteria] == ["macro_auc", "log_loss", "recall[mel]"]
