"""Several seeds on one split are compared on validation; the best is the latest."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean, stdev

import pytest

import lesiontk
from lesiontk.errors import DataError, UsageError
from lesiontk.evaluate.seeds import SeedComparison, SeedResult
from lesiontk.recipe import override_recipe
from lesiontk.records import ModelFacts
from lesiontk.store import Store
from lesiontk.workflow.seeds import compare_seeds
from tests.end_to_end.command_line import call_lesiontk
from tests.tiny.recipe import tiny_recipe

SEEDS = 2


def make_comparison(*scores: float) -> SeedComparison:
    return SeedComparison(
        recipe="tiny",
        split_hash="0" * 64,
        n=20,
        results=tuple(
            SeedResult(
                seed=seed, model=f"model-{seed}", best_epoch=1, metrics={"balanced_accuracy": score}
            )
            for seed, score in enumerate(scores, start=4)
        ),
    )


def test_the_spread_is_that_of_the_trainings() -> None:
    scores = (0.61, 0.66, 0.64)
    comparison = make_comparison(*scores)
    spread = comparison.spread["balanced_accuracy"]
    assert (spread.mean, spread.deviation) == (fmean(scores), stdev(scores))
    assert (spread.low, spread.high) == (0.61, 0.66)
    assert comparison.best == 5
    assert make_comparison(0.7, 0.7).best == 4
    assert SeedComparison.from_document(comparison.to_document()) == comparison
    with pytest.raises((ValueError, DataError), match="1 trainings have no spread"):
        make_comparison(0.5)


def test_trainings_share_a_split_and_the_best_is_the_latest(tiny_store: Store) -> None:
    """The module's workspace has the first training already: it is reused."""
    (known,) = tiny_store.list_artefacts("model")
    recipe = override_recipe(tiny_recipe(), ["train.learning_rate=1e-4"])
    made = compare_seeds(tiny_store, recipe, SEEDS)
    again = compare_seeds(tiny_store, recipe, SEEDS)
    assert again.name == made.name

    workspace = lesiontk.Workspace(tiny_store.workspace, progress=False)
    found = workspace.compare_seeds(recipe, seeds=SEEDS)
    models = [m for m in tiny_store.list_artefacts("model") if m.name != known.name]
    assert len(models) == SEEDS
    facts = {model.name: model.read_facts(ModelFacts) for model in models}
    assert {fact.split_hash for fact in facts.values()} == {found.record.split_hash}
    assert [result.seed for result in found.record.results] == [1, 2]
    for result in found.record.results:
        assert result.metrics == facts[result.model].validation.metrics
    scores = {r.seed: r.metrics["balanced_accuracy"] for r in found.record.results}
    assert scores[found.record.best] == max(scores.values())
    assert found.best.name == workspace.model().name
    assert not tiny_store.list_artefacts("evaluation")  # which would read the test images
    table = found.to_pandas()
    assert list(table["seed"]) == [1, 2]
    assert "2 seeds, validation n = " in repr(found)


def test_the_command_shows_each_seed_and_the_spread(tiny_store: Store, tmp_path: Path) -> None:
    """It reuses the trainings of the test above, or makes them."""
    recipe = tmp_path / "tiny.yaml"
    document = tiny_recipe().model_dump(mode="json")
    recipe.write_text(json.dumps(document))
    call = ("train", recipe, "--set", "train.learning_rate=1e-4", "--seeds", SEEDS, "--quiet")
    told = call_lesiontk(*call, "--json", workspace=tiny_store.workspace)
    assert told.code == 0, told.err
    printed = told.document
    text = call_lesiontk(*call, workspace=tiny_store.workspace).out
    assert f"best on validation: seed {printed['best']}" in text
    spread = printed["spread"]["balanced_accuracy"]
    assert f"{spread['mean']:.3f} ± {spread['deviation']:.3f}" in text
    assert all(result["model"] in text for result in printed["results"])


def test_bad_seeds_are_refused_before_any_work(tmp_path: Path) -> None:
    store = Store(tmp_path / "workspace")
    with pytest.raises(UsageError, match="seeds is 1; expected 2 or more"):
        compare_seeds(store, tiny_recipe(), 1)
    with pytest.raises(UsageError, match="imports a trained model, which has no seed"):
        compare_seeds(store, tiny_recipe(imported={"file": "model.keras"}), 2)
    with pytest.raises(UsageError, match="multi_worker"):
        compare_seeds(store, override_recipe(tiny_recipe(), ["train.distribute=multi_worker"]), 2)
    assert not store.workspace.exists()
