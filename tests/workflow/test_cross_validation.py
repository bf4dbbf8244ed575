"""A cross-validation through the whole chain: killed, continued, and read."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lesiontk
from lesiontk.errors import DataError, UsageError
from lesiontk.recipe import override_recipe
from lesiontk.records import Artefact
from lesiontk.stage import EngineName
from lesiontk.stages.cross_validate import PREDICTIONS, read_cross_validation
from lesiontk.stages.evaluate import read_evaluation, read_operating_point
from lesiontk.stages.known_splits import find_split
from lesiontk.stages.split import read_split
from lesiontk.store import Store
from lesiontk.workflow.cross_validation import cross_validate, list_needed, plan_folds
from lesiontk.workflow.plan import plan_recipe
from tests.end_to_end.command_line import call_lesiontk
from tests.tiny.network import registered
from tests.tiny.recipe import tiny_recipe
from tests.workflow.cross_validation_process import ENGINES, FOLDS, folded_recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def network() -> Iterator[None]:
    """The tiny network is registered."""
    with registered():
        yield


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """A workspace whose process was killed in the second fold; its artefacts and their times."""
    workspace = tmp_path_factory.mktemp("folds") / "workspace"
    command = [sys.executable, "-m", "tests.workflow.cross_validation_process", str(workspace)]
    with subprocess.Popen(command, cwd=ROOT, text=True, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        lines = []
        try:
            for line in process.stderr:
                lines.append(line.strip())
                if lines[-1].endswith("stage train") and f"fold 2 of {FOLDS}" in lines:
                    break
        finally:
            process.kill()
    assert process.returncode == -9, "\n".join(lines[-20:])
    return workspace, stamp_artefacts(workspace)


@pytest.fixture(scope="module")
def store(killed: tuple[Path, dict[str, int]]) -> Store:
    return Store(killed[0], threads=1)


@pytest.fixture(scope="module")
def result(store: Store) -> Artefact:
    """The same cross-validation, continued."""
    return cross_validate(store, folded_recipe())


def stamp_artefacts(workspace: Path) -> dict[str, int]:
    """Return each finished artefact and when its manifest was written."""
    return {p.parent.name: p.stat().st_mtime_ns for p in workspace.glob("*-*/manifest.json")}


def evaluations_of(store: Store, result: Artefact, engine: str) -> list[Artefact]:
    return [store.parent(result, f"evaluation:{engine}@fold{fold}") for fold in range(1, FOLDS + 1)]


def test_a_killed_run_continues_where_it_was(
    killed: tuple[Path, dict[str, int]], result: Artefact
) -> None:
    before, after = killed[1], stamp_artefacts(killed[0])
    kinds = Counter(name.partition("-")[0] for name in before)
    assert kinds["split"] == kinds["calibration"] == FOLDS  # all of them before any training
    assert (kinds["model"], kinds["evaluation"]) == (1, len(ENGINES))
    assert kinds["cross_validation"] == 0
    made = Counter(name.partition("-")[0] for name in after.keys() - before.keys())
    assert (made["model"], made["evaluation"], made["cross_validation"]) == (1, len(ENGINES), 1)
    models = [name for name in before if name.startswith(("model-", "engine-"))]
    assert all(after[name] == before[name] for name in models)


def test_a_finished_run_makes_nothing_again(store: Store, result: Artefact) -> None:
    before = stamp_artefacts(store.workspace)
    assert cross_validate(store, folded_recipe()).name == result.name
    assert stamp_artefacts(store.workspace).keys() == before.keys()


def test_every_image_is_tested_once_by_a_network_without_its_lesion(
    store: Store, result: Artefact
) -> None:
    with result.file(PREDICTIONS).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    splits = [
        {image.image_id: image for image in read_split(store.parent(result, f"split:fold{fold}"))}
        for fold in range(1, FOLDS + 1)
    ]
    assert Counter((row["engine"], row["image_id"]) for row in rows) == Counter(
        (engine, image) for engine in ENGINES for image in splits[0]
    )
    for row in rows:
        split = splits[int(row["fold"]) - 1]
        assert split[row["image_id"]].subset == "test"
        lesion = split[row["image_id"]].lesion_id
        assert {image.subset for image in split.values() if image.lesion_id == lesion} == {"test"}


def test_the_results_are_those_of_the_folds(store: Store, result: Artefact) -> None:
    found = read_cross_validation(result)
    assert [engine.key for engine in found.engines] == list(ENGINES)
    assert found.synthetic
    for engine in found.engines:
        evaluations = evaluations_of(store, result, engine.key)
        judged = [read_evaluation(evaluation) for evaluation in evaluations]
        assert sum(one.n for one in judged) == found.images
        right = sum(one.confusion[i][i] for one in judged for i in range(len(found.labels)))
        assert engine.metrics["accuracy"].pooled.value == pytest.approx(right / found.images)
        for name in ("balanced_accuracy", "macro_auc", "recall[mel]"):
            values = [one.metrics[name].value for one in judged]
            assert engine.metrics[name].folds == pytest.approx(values), name
        for name in ("sensitivity", "specificity", "auc"):
            values = [getattr(one.operating_point, name).value for one in judged]
            assert engine.metrics[name].folds == pytest.approx(values), name
        points = [read_operating_point(evaluation) for evaluation in evaluations]
        assert engine.thresholds == tuple(point.threshold for point in points)
    versus = found.by_engine[EngineName("tflite:int8")].versus_parent
    assert versus is not None
    assert versus.parent == "tflite:float32"
    folds = {fold.split_hash: fold for fold in found.folds}
    assert len(folds) == FOLDS
    splits = store.list_artefacts("split")
    for split_hash, fold in folds.items():
        known = find_split(split_hash, splits)
        assert known is not None
        assert Counter(known.images.values())["train"] == fold.training_images


def test_the_command_and_python_say_the_same(
    store: Store, result: Artefact, tmp_path: Path
) -> None:
    """Both reuse the workspace: nothing is trained."""
    recipe = tmp_path / "tiny.yaml"
    document = folded_recipe(folds=0).model_dump(mode="json")
    recipe.write_text(json.dumps(document))
    call = ("run", str(recipe), "--folds", str(FOLDS), "--quiet")
    told = call_lesiontk(*call, "--json", workspace=store.workspace)
    assert told.code == 0, told.err
    printed = json.loads(told.out)
    assert printed["artefact"] == result.name
    assert Path(printed["report"]).read_text().startswith("<!DOCTYPE html>")
    text = call_lesiontk(*call, workspace=store.workspace).out
    assert f"{printed['images']} images of {printed['lesions']} lesions, each tested once" in text
    assert "balanced accuracy of each fold" in text

    found = lesiontk.Workspace(store.workspace, progress=False).cross_validate(recipe, folds=FOLDS)
    assert found.artefact.name == result.name
    assert {**found.document, "artefact": 0, "report": 0} == {**printed, "artefact": 0, "report": 0}
    table = found.to_pandas()
    assert set(table["engine"]) == set(ENGINES)
    row = table[(table["engine"] == "tflite:int8") & (table["metric"] == "accuracy")].iloc[0]
    assert row["parent"] == "tflite:float32"
    assert row["pooled_low"] < row["pooled"] < row["pooled_high"]
    assert found.report.is_file()
    assert found.predictions.is_file()
    assert "each tested once" in repr(found)


def test_one_fold_has_the_ordinary_steps() -> None:
    """What a fold shares with a run of it alone: the latter continues with benchmark and report."""
    recipe = folded_recipe()
    plan = plan_folds(Store(Path("nowhere")), recipe)[1]
    whole = plan_recipe(override_recipe(recipe, ["data.split.fold=2"]), gated=False)
    assert plan.steps == whole.steps
    needed = list_needed(plan)
    assert {name.kind for name in needed} >= {"model", "calibration", "engine", "evaluation"}
    assert not {"benchmark", "report", "explanation", "bundle"} & {name.kind for name in needed}


LISTED = {"calibration": {"list": "cnn_7class"}}
TAUGHT = {"compress": [{"distill": {"teacher": "somewhere.keras"}}]}
LOADED = {"compress": [{"load_weights": {"file": "somewhere.keras"}}]}
GIVEN: tuple[tuple[dict[str, Any], str], ...] = (
    ({"imported": {"file": "model.keras"}}, "the recipe imports a trained model"),
    (LISTED, "calibration.list is cnn_7class, training images of a given split"),
    (TAUGHT, "compress.distill.teacher is somewhere.keras, a network that was trained on a given"),
    (
        LOADED,
        "compress.load_weights.file is somewhere.keras, a network that was trained on a given",
    ),
    ({"train": {"distribute": "multi_worker"}}, "`lesiontk run` does not support"),
    ({"convert": []}, "convert"),
)


@pytest.mark.parametrize(("sections", "reason"), GIVEN)
def test_what_knows_another_split_is_refused_before_any_work(
    sections: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=reason):
        lesiontk.Workspace(tmp_path / "workspace").cross_validate(
            tiny_recipe(**sections), folds=FOLDS
        )
    assert not list(tmp_path.glob("workspace/*-*"))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--folds", "1"], "folds is 1; expected 2 or more"),
        (["--folds", "3", "--allow-leaky-split"], "expected folds 0 with leaky"),
        (["--folds", "3", "--gate", "p90_ms <= 20"], "1 gate(s) were specified with 3 folds"),
        (["--folds", "3", "--set", "data.split.fold=4"], "fold is 4; expected at most folds, 3"),
    ],
)
def test_bad_folds_are_clear_errors_on_the_command_line(
    arguments: list[str], reason: str, tmp_path: Path
) -> None:
    told = call_lesiontk("run", "demo", *arguments, workspace=tmp_path / "w")
    assert told.code == 2
    assert reason in told.err
    assert not (tmp_path / "w").exists()


def test_folds_without_a_fold_are_refused_by_commands_of_one_split(tmp_path: Path) -> None:
    told = call_lesiontk("train", "demo", "--set", "data.split.folds=3", workspace=tmp_path / "w")
    assert told.code == 2
    assert "expected `lesiontk run`" in told.err


def test_more_folds_than_lesions_of_a_class_fail_before_training(store: Store) -> None:
    before = stamp_artefacts(store.workspace)
    with pytest.raises(DataError, match=r"class '\w+' has \d+ lesions; cross-validation in 40 "):
        cross_validate(store, folded_recipe(folds=40))
    assert stamp_artefacts(store.workspace).keys() == before.keys()


def test_a_dry_run_shows_the_steps_of_every_fold(tmp_path: Path) -> None:
    told = call_lesiontk(
        "run", "demo", "--folds", "3", "--dry-run", "--json", workspace=tmp_path / "w"
    )
    assert told.code == 0, told.err
    steps = json.loads(told.out)
    assert Counter(step["fold"] for step in steps).keys() == {1, 2, 3}
    dealt = [step["config"]["rule"]["fold"] for step in steps if step["step"] == "split"]
    assert dealt == [1, 2, 3]
    text = call_lesiontk("run", "demo", "--folds", "3", "--dry-run", workspace=tmp_path / "w").out
    assert [line for line in text.splitlines() if line.startswith("fold")] == [
        "fold 1:", "fold 2:", "fold 3:",
    ]  # fmt: skip
