"""Engines from other calibration draws, beside the recipe's own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from lesiontk.cli.main import cli
from lesiontk.errors import UsageError
from lesiontk.recipe import Recipe
from lesiontk.records import Artefact
from lesiontk.stages.stability import read_draws
from lesiontk.store import Store
from lesiontk.workflow.convert import measure_stability
from lesiontk.workflow.plan import plan_recipe
from lesiontk.workflow.train import train_recipe
from tests.tiny.recipe import tiny_recipe


def recipe(**changes: Any) -> Recipe:
    return tiny_recipe(calibration={"images": 21}, verify={"min_agreement_int8": 0.0}, **changes)


@pytest.fixture(scope="module")
def store(tiny_store: Store) -> Store:
    return tiny_store


@pytest.fixture(scope="module")
def model(store: Store) -> Artefact:
    return train_recipe(store, recipe())


@pytest.fixture(scope="module")
def stability(store: Store, model: Artefact) -> Artefact:
    return measure_stability(store, model, "tflite:int8", 2)


def test_each_draw_is_another_and_has_its_row(stability: Artefact) -> None:
    rows = read_draws(stability)
    assert [row.seed for row in rows] == [8, 9]
    assert all(0 < row.shared < stability.facts["images"] == 21 for row in rows)
    assert all(0 < row.mean_drift < 0.05 for row in rows)
    assert rows[0].mean_drift != rows[1].mean_drift
    assert stability.facts["least_agreement"] == min(row.top1_agreement for row in rows)


def test_the_spread_is_that_of_all_engines(stability: Artefact) -> None:
    scores = [row.balanced_accuracy for row in read_draws(stability)]
    scores.append(stability.facts["own"]["balanced_accuracy"])
    assert stability.facts["spread"]["balanced_accuracy"] == pytest.approx(
        max(scores) - min(scores)
    )


def test_the_command_shows_it_and_a_float_engine_has_none(
    store: Store, model: Artefact, stability: Artefact
) -> None:
    call = ["calibration", "stability", model.name, "--workspace", str(store.workspace)]
    shown = CliRunner().invoke(cli, [*call, "--draws", "2"], catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    assert stability.name in shown.output
    assert "7 (the recipe's)" in shown.output
    document = json.loads(CliRunner().invoke(cli, [*call, "--draws", "2", "--json"]).stdout)
    assert document["rows"] == [row.to_document() for row in read_draws(stability)]
    with pytest.raises(UsageError, match="not calibrated to int8"):
        measure_stability(store, model, "tflite:float32", 2)


def test_a_recipe_that_wants_it_has_a_step_for_each_int8_engine() -> None:
    plan = plan_recipe(recipe(stability={"draws": 2}))
    names = [step.name for step in plan.steps if step.stage == "stability"]
    assert names == ["stability:tflite:int8", "stability:onnx:int8"]
    assert "stability:onnx:int8" in plan["report"].parents
    assert not any(step.stage == "stability" for step in plan_recipe(recipe()).steps)
