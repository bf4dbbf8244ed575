"""Images from elsewhere are judged at the threshold that was frozen, or at one that is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
from click.testing import CliRunner, Result

from lesiontk.backends import open_engine
from lesiontk.backends.stamp import stamp
from lesiontk.cli.main import cli
from lesiontk.data.synthetic.dataset import write_synthetic_dataset
from lesiontk.document import write_record
from lesiontk.errors import DataError, UsageError
from lesiontk.evaluate.assessment import Assessment
from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.evaluate.evaluation import EngineEvaluation
from lesiontk.evaluate.metrics import metric_names
from lesiontk.evaluate.operating_point import (
    OperatingEvaluation,
    OperatingPoint,
    ValidationOutcome,
)
from lesiontk.evaluate.temperature import TemperatureEvaluation
from lesiontk.progress import NoProgress
from lesiontk.recipe import EvaluateRule
from lesiontk.records import Artefact
from lesiontk.report.result_table import table_from_external
from lesiontk.stage import Context, Stage, StageConfig, StageInfo, StageOutput
from lesiontk.stages.evaluate import METRICS, read_assessment
from lesiontk.store import Store
from lesiontk.workflow import evaluate
from lesiontk.workflow.evaluate import (
    check_export,
    evaluate_external,
    evaluate_folder,
    evaluate_reference,
    export_engine,
)
from lesiontk.workflow.lineage import find_assessment, locate_engine
from lesiontk.workflow.predict import predict_reference
from tests.artefacts import change_manifest, make_engine_facts
from tests.deploy.bundles import ENGINES

ROOT = Path(__file__).parents[2]
ENGINE = ENGINES / "tflite_int8.tflite"
ISIC = ROOT.parent / "shared" / "data" / "isic2018_validation"
RULE = EvaluateRule(resamples=100)
FROZEN = OperatingPoint(
    "youden", 0.125, ("akiec", "bcc", "mel"), ValidationOutcome(100, 20, 0.9, 0.8)
)


class EngineStage(Stage):
    """The published engine, as if it had been converted here."""

    info: ClassVar[StageInfo] = StageInfo("keep", 1, {}, "engine", StageConfig)

    def run(
        self, parents: Mapping[str, Artefact], config: StageConfig, context: Context
    ) -> StageOutput:
        shutil.copyfile(ENGINE, context.directory / ENGINE.name)
        return StageOutput(make_engine_facts(file=ENGINE.name).to_document())


class FrozenStage(Stage):
    """An evaluation that froze `FROZEN`."""

    info: ClassVar[StageInfo] = StageInfo(
        "freeze", 1, {"engine": "engine"}, "evaluation", EvaluateRule
    )

    def run(
        self, parents: Mapping[str, Artefact], config: EvaluateRule, context: Context
    ) -> StageOutput:
        return StageOutput({"operating_point": FROZEN.to_document()})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elsewhere")
    write_synthetic_dataset(folder, lesions=28, image_size=32, seed=3)
    return folder


@pytest.fixture
def engine(store: Store) -> Artefact:
    return store.build(EngineStage(), StageConfig(), {})


class AssessedStage(Stage):
    """An evaluation with its document."""

    info: ClassVar[StageInfo] = StageInfo(
        "assess", 1, {"engine": "engine"}, "evaluation", EvaluateRule
    )

    def run(
        self, parents: Mapping[str, Artefact], config: EvaluateRule, context: Context
    ) -> StageOutput:
        estimate = Estimate(0.5, 0.4, 0.6)
        labels = ("benign", "malignant")
        evaluation = EngineEvaluation(
            n=10, lesions=9, labels=labels, metrics=dict.fromkeys(metric_names(labels), estimate),
            confusion=((4, 1), (1, 4)), confidence=0.95, resamples=100, seed=0, reliability=(),
            target="tflite:int8", critical="malignant", split_hash="7" * 64,
            operating_point=OperatingEvaluation(
                **FROZEN.field_values(), positives=5,
                sensitivity=estimate, specificity=estimate, auc=estimate,
            ),
            temperature=TemperatureEvaluation(1.5, estimate),
        )  # fmt: skip
        write_record(context.directory / METRICS, evaluation)
        return StageOutput({"operating_point": FROZEN.to_document()})


@pytest.fixture
def assessed(store: Store, engine: Artefact) -> Artefact:
    return store.build(AssessedStage(), RULE, {"engine": engine})


@pytest.fixture
def evaluation(store: Store, engine: Artefact) -> Artefact:
    return store.build(FrozenStage(), RULE, {"engine": engine})


# ------------------------------------------------------------- the document


def test_the_frozen_threshold_judges_images_from_elsewhere(
    store: Store, engine: Artefact, evaluation: Artefact, folder: Path
) -> None:
    found = evaluate_external(store, engine, evaluation, folder)
    point = found.operating_point
    assert point.point == FROZEN
    assert found.n == len(list(folder.glob("*/*.jpg")))
    assert found.lesion_ids_known
    assert found.lesions == 28
    assert found.resamples == RULE.resamples
    for estimate in (point.sensitivity, point.specificity, found.metrics["macro_auc"]):
        assert estimate.value is not None
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low <= estimate.value <= estimate.high
    assert next(n for n in found.metrics if n.startswith("recall")) == "recall[mel]"
    assert found.citation
    assert str(folder) not in json.dumps(found.to_document())


def test_an_evaluation_of_another_engine_is_refused(
    store: Store, engine: Artefact, evaluation: Artefact, folder: Path
) -> None:
    stranger = change_manifest(engine, content="0" * 64)
    with pytest.raises(DataError, match="is the evaluation of another engine"):
        evaluate_external(store, stranger, evaluation, folder)


def test_a_lower_threshold_finds_more_and_rejects_less(folder: Path) -> None:
    found = [
        evaluate_folder(ENGINE, folder, None, RULE, NoProgress(), point=value).operating_point
        for value in (0.0, 0.1, 0.9, 1.0)
    ]
    sensitivities = [point.sensitivity.value for point in found]
    specificities = [point.specificity.value for point in found]
    assert sensitivities == sorted(sensitivities, reverse=True)
    assert specificities == sorted(specificities)
    assert (sensitivities[0], specificities[0]) == (1.0, 0.0)
    assert len({point.auc.value for point in found}) == 1
    assert {point.rule for point in found} == {"given"}


def test_without_a_threshold_a_half_stands_in_and_says_so(folder: Path) -> None:
    point = evaluate_folder(ENGINE, folder, None, RULE, NoProgress()).operating_point
    assert (point.rule, point.threshold) == ("default", 0.5)
    assert point.validation is None


# ------------------------------------------------------------- references


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch, evaluation: Artefact) -> None:
    """The evaluation of an engine of the workspace is there."""
    monkeypatch.setattr(evaluate, "evaluate_artefact", lambda *arguments: evaluation)


@pytest.mark.usefixtures("frozen")
def test_an_engine_of_the_workspace_brings_its_threshold(
    store: Store, engine: Artefact, folder: Path
) -> None:
    point = evaluate_reference(store, engine.name, folder, None).operating_point
    assert (point.rule, point.threshold) == ("youden", 0.125)


@pytest.mark.usefixtures("frozen")
def test_a_threshold_that_is_given_goes_before_the_frozen_one(
    store: Store, engine: Artefact, folder: Path
) -> None:
    point = evaluate_reference(store, engine.name, folder, None, threshold=0.31).operating_point
    assert (point.rule, point.threshold) == ("given", 0.31)


def test_the_test_split_takes_no_threshold(store: Store, engine: Artefact) -> None:
    with pytest.raises(UsageError, match="--threshold requires --images"):
        evaluate_reference(store, engine.name, None, None, threshold=0.31)


# ------------------------------------------------------------ the command


def call(store: Store, folder: Path, *options: str) -> Result:
    settings = ("--set", "evaluate.resamples=100", "--workspace", str(store.workspace))
    arguments = ("evaluate", str(ENGINE), "--images", str(folder), *options, *settings)
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


def read_cells(result: Result) -> dict[str, str]:
    """First column -> second of everything that was printed as a table."""
    lines = [line.strip("│").split("│") for line in result.stdout.splitlines()]
    return {cells[0].strip(): cells[1].strip() for cells in lines if len(cells) == 2}


def test_the_command_says_which_threshold_was_used(store: Store, folder: Path) -> None:
    without = call(store, folder)
    assert without.exit_code == 0
    assert "the engine file contains no threshold" in without.stderr
    cells = read_cells(without)
    assert (cells["threshold"], cells["chosen by"]) == ("0.5", "default 0.5")
    given = call(store, folder, "--threshold", "0.31")
    assert "no threshold is known" not in given.stderr
    cells = read_cells(given)
    assert (cells["threshold"], cells["chosen by"]) == ("0.31", "user-supplied")
    assert cells["positive"] == "akiec + bcc + mel"
    assert all("–" in cells[name] for name in ("sensitivity", "specificity", "auc"))


def test_the_json_holds_threshold_sensitivity_specificity_and_auc(
    store: Store, folder: Path
) -> None:
    point = json.loads(call(store, folder, "--threshold", "0.31", "--json").stdout)[
        "operating_point"
    ]
    assert point["threshold"] == 0.31
    assert point["positive"] == ["akiec", "bcc", "mel"]
    assert {"sensitivity", "specificity", "auc"} <= set(point)


def test_a_threshold_that_is_no_probability_is_bad_usage(store: Store, folder: Path) -> None:
    assert call(store, folder, "--threshold", "31").exit_code == 2


# ------------------------------------------------------------ real images


@pytest.mark.shared
def test_the_isic_validation_images_are_an_external_check(
    store: Store, engine: Artefact, evaluation: Artefact
) -> None:
    if not ISIC.is_dir():
        pytest.skip("needs the validation images of ISIC 2018 task 3 beside the checkout")
    found = evaluate_external(store, engine, evaluation, ISIC)
    assert found.n == 193
    assert found.lesions == 145
    assert found.seen_images == {}
    assert found.operating_point.positives == 44  # 21 mel, 15 bcc, 8 akiec
    assert found.operating_point.auc.value is not None
    assert found.operating_point.auc.value > 0.8
    text = table_from_external("ISIC 2018", {"tflite:int8": found})
    assert "n = 193 images of 145 lesions" in text


# ------------------------------------------------------- files of a workspace


def test_a_file_judges_at_the_threshold_that_it_carries(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / ENGINE.name
    stamp(ENGINE, Assessment(FROZEN, 1.5), path)
    found = evaluate_folder(path, folder, None, RULE, NoProgress())
    point = found.operating_point
    assert (point.rule, point.threshold) == ("youden", 0.125)
    assert found.temperature is not None
    assert found.temperature.temperature == 1.5
    given = evaluate_folder(path, folder, None, RULE, NoProgress(), point=0.4).operating_point
    assert (given.rule, given.threshold) == ("given", 0.4)


def test_an_engine_given_by_its_path_in_a_workspace_is_checked(
    store: Store, engine: Artefact
) -> None:
    path = engine.file(ENGINE.name)
    assert locate_engine(store, str(path)) == path
    stranger = engine.path / "other.tflite"
    shutil.copyfile(path, stranger)
    with pytest.raises(DataError, match=r"has no file 'other\.tflite'"):
        locate_engine(store, str(stranger))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    for elsewhere in (store, Store(store.workspace / "another")):
        with pytest.raises(DataError, match=f"cannot be used: {ENGINE.name} was changed"):
            locate_engine(elsewhere, str(path))
    link = store.workspace.parent / "link.tflite"
    link.symlink_to(path)
    with pytest.raises(DataError, match="was changed"):
        locate_engine(store, str(link))


def test_an_engine_by_its_path_decides_as_by_its_name(
    store: Store, engine: Artefact, assessed: Artefact, folder: Path
) -> None:
    picture = next(folder.glob("*/*.jpg"))
    named = predict_reference(store, engine.name, [picture])
    by_path = predict_reference(Store(folder), str(engine.file(ENGINE.name)), [picture])
    assert named == by_path
    assert named.operating_point.threshold == 0.125
    assert named.predictions[0].to_document().keys() >= {"score", "positive", "confidence"}
    assert find_assessment(store, engine.name) == read_assessment(assessed)


def test_an_evaluated_engine_is_written_with_its_figures(
    store: Store, engine: Artefact, assessed: Artefact, tmp_path: Path
) -> None:
    out = tmp_path / "mine" / "engine.tflite"
    export_engine(store, engine.name, out)
    with open_engine(out) as opened:
        assert opened.assessment is not None
        assert opened.assessment.test == read_assessment(assessed).test
    for wrong, said in ((out, "exists"), (tmp_path / "a.onnx", r"ends in \.tflite")):
        with pytest.raises(UsageError, match=said):
            check_export(store, engine.name, None, wrong)
    with pytest.raises(UsageError, match="--out was specified with --images"):
        check_export(store, engine.name, tmp_path, tmp_path / "b.tflite")
