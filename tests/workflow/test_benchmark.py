"""The report tells of what was measured before it, where that is of the engines it shows."""

from __future__ import annotations

from typing import Any

import pytest

from lesiontk.calibration.observers import OBSERVERS, MinMaxObserver
from lesiontk.errors import GateFailedError
from lesiontk.recipe import Recipe
from lesiontk.records import Artefact
from lesiontk.stages.sensitivity import rank_layers
from lesiontk.store import Store
from lesiontk.workflow.benchmark import report_model
from lesiontk.workflow.convert import convert_model, measure_sensitivity, measure_stability
from lesiontk.workflow.lineage import engines_of, sensitivities_of, stabilities_of
from lesiontk.workflow.train import train_recipe
from tests.report.page import Page
from tests.tiny.recipe import TINY, tiny_recipe

QUICK = ("explain.images=0", "bench.rounds=20", "evaluate.resamples=100")
SEARCH = (
    "sensitivity.images=16", "sensitivity.trials=1", "gate=macro_auc >= parent - 0.01 @ 0.95",
)  # fmt: skip
SENSITIVITY = "Sensitivity of each layer on tflite"
STABILITY = "Engines from other calibration draws"


class BlindObserver(MinMaxObserver):
    """Sees a hundredth of every range: its engines answer nearly the same to every image."""

    def range(self) -> tuple[float, float]:
        low, high = super().range()
        return low / 100, high / 100


def recipe(**sections: Any) -> Recipe:
    return tiny_recipe(calibration={"images": 21}, verify={"min_agreement_int8": 0.0}, **sections)


@pytest.fixture(scope="module")
def store(tiny_store: Store) -> Store:
    return tiny_store


@pytest.fixture(scope="module")
def model(store: Store) -> Artefact:
    return train_recipe(store, recipe())


def report(store: Store, model: Artefact) -> tuple[Artefact, Page]:
    made = report_model(store, model, QUICK)
    return made, Page(made.file("report.html").read_text(encoding="utf-8"))


def test_a_report_before_anything_was_measured_tells_of_nothing(
    store: Store, model: Artefact
) -> None:
    _, page = report(store, model)
    assert SENSITIVITY not in page.tables
    assert STABILITY not in page.tables


def test_where_the_gate_cannot_be_met_the_report_shows_what_int8_does_to_each_layer(
    store: Store, model: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OBSERVERS._targets, "blind", f"{__name__}:BlindObserver")
    with pytest.raises(
        GateFailedError, match=r"no mixed engine meets the gate: .*`lesiontk report`"
    ):
        convert_model(store, model, ["tflite:mixed"], [*SEARCH, "calibration.observer=blind"])
    made, page = report(store, model)
    (measured,) = store.list_artefacts("sensitivity")
    assert measured.facts["kept"] is None
    assert made.manifest.parents["sensitivity:tflite"].name == measured.name
    rows = page.tables[SENSITIVITY][1:]
    assert len(rows) == len(rank_layers(measured))
    assert {row[-1] for row in rows} == {"–"}
    assert "so there is no mixed engine" in page.text
    assert any("Sensitivity of the layers on tflite" in text for text in page.values("alt"))


def test_the_sensitivity_measured_last_is_taken_and_not_another_models(
    store: Store, model: Artefact
) -> None:
    other = train_recipe(store, recipe(train={**TINY["train"], "seed": 9}))
    last = measure_sensitivity(store, model, "tflite", [*SEARCH, "sensitivity.images=17"])
    others = measure_sensitivity(store, other, "tflite", SEARCH)
    for whose, expected in ((model, last), (other, others)):
        (found,) = sensitivities_of(store, whose).values()
        assert found.name == expected.name


def test_a_stability_is_taken_of_the_very_engine_that_is_shown(
    store: Store, model: Artefact
) -> None:
    measured = measure_stability(store, model, "tflite:int8", 1)
    made, page = report(store, model)
    assert made.manifest.parents["stability:tflite:int8"].name == measured.name
    (row,) = page.tables[STABILITY][1:]
    assert row[:3] == ["tflite:int8", "1", "21"]
    convert_model(store, model, ["tflite:int8"], ["calibration.seed=50"])
    assert stabilities_of(store, engines_of(store, model)) == {}
