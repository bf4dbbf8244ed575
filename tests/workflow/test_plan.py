"""A plan is whole, in an order that can run, and refuses before any work what cannot be done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lesiontk.backends import BACKENDS
from lesiontk.errors import DataError, LesionTKError, MissingRequirementError, UsageError
from lesiontk.models import ARCHITECTURES
from lesiontk.recipe import Recipe, list_recipes, override_recipe, parse_recipe, read_recipe
from lesiontk.records import Artefact, Availability
from lesiontk.stage import Context, StageConfig, StageOutput
from lesiontk.stages import STAGES
from lesiontk.technique import TECHNIQUES, Technique, TechniqueInfo
from lesiontk.workflow.plan import plan_recipe
from lesiontk.workflow.steps import Plan

PROBE = parse_recipe({"name": "probe", "data": {"source": "synthetic"}})


def plan(*overrides: str) -> Plan:
    return plan_recipe(override_recipe(PROBE, overrides))


def names(plan: Plan) -> list[str]:
    return [step.name for step in plan.steps]


def engines(plan: Plan) -> list[str]:
    return [name.removeprefix("engine:") for name in names(plan) if name.startswith("engine:")]


class ShrinkConfig(StageConfig):
    share: float = 0.5


class FakeShrink(Technique):
    """A compression that may follow training and itself."""

    info: ClassVar[TechniqueInfo] = TechniqueInfo(
        name="fake_shrink",
        version=1,
        accepts={"model": "model", "images": "images"},
        config=ShrinkConfig,
        holds=frozenset({"a shape"}),
        leaves=frozenset({"a shape"}),
        why_last="it is as small as it may be",
    )

    def describe(self, facts: Mapping[str, Any]) -> str:
        raise NotImplementedError

    def run(self, parents: Mapping[str, Artefact], config: Any, context: Context) -> StageOutput:
        raise NotImplementedError


class FakeTune(FakeShrink):
    """A compression that may follow what leaves nothing."""

    info: ClassVar[TechniqueInfo] = TechniqueInfo(
        name="fake_tune",
        version=1,
        accepts={"model": "model", "images": "images"},
        config=ShrinkConfig,
        leaves=frozenset({"a tune"}),
        why_last="it is tuned",
    )


@pytest.fixture
def compressions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two stages above, registered for one test."""
    monkeypatch.setattr(TECHNIQUES, "_targets", dict(TECHNIQUES._targets))
    TECHNIQUES.register("fake_shrink", f"{__name__}:FakeShrink")
    TECHNIQUES.register("fake_tune", f"{__name__}:FakeTune")


SMALLER = "[{resize: {image_size: 40, recover: null}}, {prune: {keep_macs: 0.5}}]"


# ------------------------------------------------------------------------------ order


@pytest.mark.parametrize("name", list_recipes())
def test_every_shipped_recipe_can_be_planned(name: str, tmp_path: Path) -> None:
    recipe = read_recipe(name, ["data.source=synthetic"])
    if ARCHITECTURES.get(recipe.model.architecture).weights_package:
        (tmp_path / "weights.npz").touch()
        weights = f"model.weights={tmp_path / 'weights.npz'}"
        recipe = read_recipe(name, ["data.source=synthetic", weights])
    assert names(plan_recipe(recipe))[-1] == "report"


@pytest.mark.parametrize(
    "convert",
    [
        "[keras:float32]",
        "[onnx:int8, tflite:int8, keras:float32]",
        "[keras:float32, tflite:float32, tflite:int8, onnx:float32, onnx:int8]",
    ],
)
@pytest.mark.parametrize("compress", ["[]", SMALLER])
def test_every_step_comes_after_its_parents(convert: str, compress: str) -> None:
    seen: set[str] = set()
    for step in plan(f"convert={convert}", f"compress={compress}").steps:
        assert set(step.parents.values()) <= seen
        assert step.name not in seen
        seen.add(step.name)


@pytest.mark.parametrize("compress", ["[]", SMALLER])
@pytest.mark.parametrize("name", ["tflite:int8", "onnx:int8"])
def test_every_parent_is_of_a_kind_that_the_stage_accepts(name: str, compress: str) -> None:
    made = plan(f"convert=[{name}]", f"compress={compress}")
    for step in made.steps:
        accepts = STAGES.get(step.stage).info.accepts
        for role, parent in step.parents.items():
            kind = STAGES.get(made[parent].stage).info.produces
            assert kind in accepts[role.partition(":")[0]].split("|")


def test_data_comes_first_and_the_report_last() -> None:
    received = names(plan("convert=[keras:float32]"))
    assert received == [
        "dataset",
        "inspection",
        "split",
        "images",
        "model",
        "engine:keras:float32",
        "evaluation:keras:float32",
        "explanation",
        "benchmark",
        "report",
    ]


def test_a_folder_of_images_stands_in_the_place_of_the_generated_ones(tmp_path: Path) -> None:
    made = plan("data.source=auto", f"data.path={tmp_path}")
    assert "dataset" not in names(made)
    assert made["inspection"].config.path == str(tmp_path)  # type: ignore[attr-defined]
    assert made["images"].config.path == str(tmp_path)  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", ["[hair_removal, noise_reduction]", "hair_removal"])
def test_enhancements_are_prepared_in_the_order_of_the_recipe(value: str) -> None:
    prepared = plan(f"data.enhance={value}")["images"].config
    assert ", ".join(prepared.enhance) == value.strip("[]")  # type: ignore[attr-defined]
    assert plan()["images"].config.enhance == ()  # type: ignore[attr-defined]


def test_an_unknown_enhancement_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'colour_sharp'.*Did you mean 'colour_sharpening'\?"):
        plan("data.enhance=[hair_removal, colour_sharp]")


def test_planning_touches_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan()
    assert list(tmp_path.iterdir()) == []


def test_a_plan_can_be_described_as_json() -> None:
    document = json.loads(json.dumps([step.to_document() for step in plan().steps]))
    assert [step["step"] for step in document] == names(plan())
    model = next(step for step in document if step["step"] == "model")
    assert model["stage"] == "train"
    assert model["parents"] == {"images": "images"}
    assert model["config"]["train"]["epochs"] == PROBE.train.epochs


# ------------------------------------------------------------------------------ engines


def test_int8_brings_what_it_is_derived_from_and_a_calibration() -> None:
    made = plan("convert=[onnx:int8]")
    assert engines(made) == ["tflite:float32", "onnx:float32", "onnx:int8"]
    assert made["engine:onnx:int8"].parents == {
        "images": "images",
        "source": "engine:onnx:float32",
        "model": "model",
        "calibration": "calibration",
        "ranges": "ranges:onnx:float32",
    }
    assert made["engine:tflite:float32"].parents["source"] == "model"
    assert made["report"].parents["calibration"] == "calibration"


def test_ranges_are_measured_once_for_each_source_graph() -> None:
    made = plan("convert=[onnx:int8, tflite:int8]")
    measured = [name for name in names(made) if name.startswith("ranges:")]
    assert sorted(measured) == ["ranges:onnx:float32", "ranges:tflite:float32"]
    assert made["ranges:tflite:float32"].parents == {
        "source": "engine:tflite:float32",
        "images": "images",
        "calibration": "calibration",
    }
    assert made["ranges:onnx:float32"].parents == {
        "source": "engine:onnx:float32",
        "images": "images",
        "calibration": "calibration",
        "known": "ranges:tflite:float32",
        "origin": "engine:tflite:float32",
    }
    assert not [n for n in names(plan("convert=[tflite:float32]")) if n.startswith("ranges:")]


def test_a_derived_graph_brings_the_ranges_that_it_carries_on() -> None:
    made = [name for name in names(plan("convert=[onnx:int8]")) if name.startswith("ranges:")]
    assert made == ["ranges:tflite:float32", "ranges:onnx:float32"]


def test_float_engines_need_no_calibration() -> None:
    made = plan("convert=[onnx:float32]")
    assert engines(made) == ["tflite:float32", "onnx:float32"]
    assert "calibration" not in names(made)
    assert "calibration" not in made["report"].parents


def test_a_target_that_is_named_twice_is_made_once() -> None:
    made = plan("convert=[tflite:int8, tflite:float32, tflite:int8]")
    assert engines(made) == ["tflite:float32", "tflite:int8"]


def test_every_engine_is_evaluated_timed_and_reported() -> None:
    made = plan()
    assert len(engines(made)) == 5
    for target in engines(made):
        assert made[f"evaluation:{target}"].parents["engine"] == f"engine:{target}"
        for step in ("benchmark", "report"):
            assert made[step].parents[f"engine:{target}"] == f"engine:{target}"
            assert made[step].parents[f"evaluation:{target}"] == f"evaluation:{target}"


def test_the_model_is_explained_by_its_own_evaluation_where_there_is_one() -> None:
    made = plan()
    assert made["explanation"].parents == {
        "model": "model",
        "images": "images",
        "evaluation": "evaluation:keras:float32",
    }
    assert made["explanation"].config.images == PROBE.explain.images  # type: ignore[attr-defined]
    assert made["report"].parents["explanation"] == "explanation"
    without = plan("convert=[tflite:int8]")["explanation"]
    assert without.parents == {"model": "model", "images": "images"}


def test_no_heatmaps_are_made_where_none_are_wanted() -> None:
    made = plan("explain.images=0")
    assert "explanation" not in names(made)
    assert "explanation" not in made["report"].parents


def test_a_back_end_that_cannot_run_here_is_refused_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    absent = Availability(False, "the package tf2onnx is not installed")
    monkeypatch.setattr(BACKENDS.get("onnx"), "available", lambda self: absent)
    with pytest.raises(MissingRequirementError, match="onnx:int8: the package tf2onnx is not"):
        plan("convert=[onnx:int8]")
    assert engines(plan("convert=[tflite:int8]")) == ["tflite:float32", "tflite:int8"]


# ------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.architecture=vgg61", "unknown architecture 'vgg61'.* Did you mean 'vgg16'"),
        ("data.source=ham1000", "unknown data source 'ham1000'.* Did you mean 'ham10000'"),
        ("data.task=malignant", "unknown task 'malignant'.* Did you mean 'malignancy'"),
        ("calibration.observer=minmax", "unknown observer 'minmax'.* Did you mean 'min_max'"),
        ("calibration.list=no_such_list", "unknown calibration list 'no_such_list'"),
        ("train.augment=flip", "unknown augmentation 'flip'.* Did you mean 'flips'"),
        ("train.imbalance=focal", "unknown imbalance choice 'focal'.* Did you mean 'focal_loss'"),
        ("convert=[tflight:int8]", "unknown back end 'tflight'.* Did you mean 'tflite'"),
        ("convert=[tflite:int4]", "tflite has no precision 'int4'.* Did you mean 'tflite:int8'"),
        ("convert=[tflite]", "tflite has no precision ''"),
        ("gate=acuracy >= 0.5", r"expected a metric .*Did you mean 'accuracy'"),
        ("gate=recall[melanoma] >= 0.5", r"'recall\[melanoma\]'.* Did you mean 'recall\[mel"),
        ("compress=[{squash: {}}]", "unknown compression 'squash'"),
        ("compress=[{train: {}}]", "unknown compression 'train'"),
        ("data.image_size=16", "data.image_size is 16; cnn needs at least 32 pixels"),
        ("model.weights=imagenet", "cnn is trained from random weights; use 'none'"),
        ("train.head_epochs=1", "model.weights is none: the last layer would be trained on random"),
        ("train.micro_batches=5", "batch_size is 32; expected a multiple of .*micro_batches, 5"),
        ("train.grow=[48, 32]", r"train.grow is \[48, 32\]; expected increasing sizes from 32"),
        ("train.grow=[16]", r"expected increasing sizes from 32 to below data.image_size, 96"),
        ("train.grow=[96]", "expected increasing sizes"),
        ("data.split.leaky=true", "tflite:int8 requires calibration images .* this split leaks"),
    ],
)
def test_a_name_that_is_not_known_is_refused(override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan(override)


def test_a_metric_of_another_task_is_refused() -> None:
    gate = "gate=recall[mel] >= 0.5"
    assert plan(gate)
    with pytest.raises(UsageError, match=r"metric 'recall\[mel\]'.*recall\[malignant\]"):
        plan(gate, "data.task=malignancy")


def test_gates_of_another_task_do_not_stand_in_the_way_of_a_split() -> None:
    recipe = override_recipe(PROBE, ["gate=recall[mel] >= 0.5", "data.task=malignancy"])
    assert plan_recipe(recipe, gated=False)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.source=auto"], "recipe probe requires images: specify --data DIR"),
        (["data.path=nowhere/at/all"], "data folder nowhere/at/all does not exist"),
        (["model.architecture=vgg16", "model.weights=no.h5"], "weights file no.h5 does not exist"),
        (["data.task=no_such_task.yaml"], "task file no_such_task.yaml does not exist"),
    ],
)
def test_a_missing_file_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises((UsageError, DataError), match=message):
        plan(*overrides)


def test_images_that_are_known_already_are_not_asked_for() -> None:
    recipe = override_recipe(PROBE, ["data.source=auto", "data.path=gone/for/good"])
    assert "model" in names(plan_recipe(recipe, images_known=True))
    with pytest.raises(UsageError):
        plan_recipe(recipe)


# ------------------------------------------------------------------------------ compression


@pytest.mark.usefixtures("compressions")
def test_a_compressed_model_is_judged_against_the_one_that_was_trained() -> None:
    made = plan("compress=[{fake_shrink: {}}, {fake_shrink: {}}]", "convert=[onnx:int8]")
    assert (made.trained, made.model) == ("model", "model:2:fake_shrink")
    assert made["engine:onnx:float32@trained"].parents == {
        "images": "images",
        "source": "engine:tflite:float32@trained",
        "model": "model",
    }
    assert made["engine:tflite:float32@trained"].parents["source"] == "model"
    assert "engine:onnx:int8@trained" not in made
    judged = {
        name: made[f"evaluation:{name}"].parents.get("parent")
        for name in ("tflite:float32@trained", "onnx:float32@trained", "tflite:float32")
    }
    assert judged == {
        "tflite:float32@trained": None,
        "onnx:float32@trained": "evaluation:tflite:float32@trained",
        "tflite:float32": "evaluation:tflite:float32@trained",
    }
    assert "engine:onnx:float32@trained" in made["benchmark"].parents
    assert "engine:onnx:float32@trained" in made["report"].parents


def test_what_a_teacher_taught_is_trained_not_compressed(tmp_path: Path) -> None:
    teacher = tmp_path / "teacher.keras"
    teacher.touch()
    made = plan(f"compress=[{{distill: {{teacher: {teacher}}}}}]")
    assert made.trained == made.model == "model:1:distill"
    assert not [name for name in names(made) if "@trained" in name]


@pytest.mark.usefixtures("compressions")
def test_the_report_has_every_model_on_the_way() -> None:
    told = plan("compress=[{fake_shrink: {}}, {fake_shrink: {}}]")["report"].parents
    assert {role: step for role, step in told.items() if step.startswith("model")} == {
        "ancestor:0@train": "model",
        "ancestor:1@fake_shrink": "model:1:fake_shrink",
        "model": "model:2:fake_shrink",
    }
    assert not [role for role in plan()["report"].parents if role.startswith("ancestor")]


@pytest.mark.usefixtures("compressions")
def test_compressions_follow_the_model_and_the_last_is_converted() -> None:
    made = plan("compress=[{fake_shrink: {}}, {fake_shrink: {share: 0.25}}]")
    assert [n for n in names(made) if n.startswith("model")] == [
        "model",
        "model:1:fake_shrink",
        "model:2:fake_shrink",
    ]
    assert made["model:2:fake_shrink"].parents == {
        "model": "model:1:fake_shrink",
        "images": "images",
    }
    assert made["model:2:fake_shrink"].config == ShrinkConfig(share=0.25)
    assert made.model == "model:2:fake_shrink"
    assert made["engine:keras:float32"].parents["source"] == made.model
    assert made["report"].parents["model"] == made.model
    assert made["explanation"].parents["model"] == made.model


@pytest.mark.usefixtures("compressions")
def test_an_order_that_is_not_allowed_is_refused() -> None:
    tune, shrink = "{fake_tune: {}}", "{fake_shrink: {}}"
    assert plan(f"compress=[{tune}]")
    with pytest.raises(
        UsageError,
        match=r"fake_tune cannot follow fake_shrink: it is as .* may follow train, .* either",
    ):
        plan(f"compress=[{shrink}, {tune}]")
    with pytest.raises(UsageError, match="fake_shrink cannot follow fake_tune"):
        plan(f"compress=[{tune}, {shrink}]")


@pytest.mark.usefixtures("compressions")
@pytest.mark.parametrize(
    ("compress", "message"),
    [
        ("[{fake_shrnk: {}}]", "unknown compression 'fake_shrnk'.* Did you mean 'fake_shrink'"),
        ("[{fake_shrink: {}, fake_tune: {}}]", r"compress\[0\] has the keys .*expected one"),
        ("[{}]", r"compress\[0\] has the keys \[\]; expected one"),
        ("[{fake_shrink: 3}]", r"compress\[0\]\.fake_shrink is 3; expected its options"),
        ("[fake_shrink]", r"compress\[0\] is 'fake_shrink'; expected a technique"),
        ("[{fake_shrink: {shar: 1}}]", "compress.fake_shrink .*'shar'. Did you mean 'share'"),
        ("[{fake_shrink: {share: a}}]", "compress.fake_shrink is not valid: share: .*'a'"),
    ],
)
def test_a_compression_that_cannot_be_understood_is_refused(compress: str, message: str) -> None:
    with pytest.raises(LesionTKError, match=message):
        plan(f"compress={compress}")


def test_a_recipe_is_not_changed_by_planning_it() -> None:
    before: Recipe = PROBE.model_copy(deep=True)
    assert plan_recipe(PROBE).recipe == before


def test_an_engine_is_judged_after_the_engine_that_it_is_derived_from() -> None:
    made = plan("convert=[tflite:int8]")
    assert made["evaluation:tflite:int8"].parents["parent"] == "evaluation:tflite:float32"
    assert "parent" not in made["evaluation:tflite:float32"].parents
    names = [step.name for step in made.steps]
    assert names.index("evaluation:tflite:float32") < names.index("evaluation:tflite:int8")


def test_a_bundle_is_made_of_the_engine_that_fits_the_device_best() -> None:
    made = plan("bundle=[linux-arm64, android]")
    for device in ("linux-arm64", "android"):
        step = made[f"bundle:{device}"]
        assert step.parents == {
            "engine": "engine:tflite:int8",
            "evaluation": "evaluation:tflite:int8",
            "benchmark": "benchmark",
            "input_checks": "input_checks:tflite:int8",
        }
    names = [step.name for step in made.steps]
    assert names.count("input_checks:tflite:int8") == 1
    assert made["report"].parents["input_checks:tflite:int8"] == "input_checks:tflite:int8"


def test_a_jetsons_bundle_has_the_float16_engine_of_the_recipe() -> None:
    bundle = "bundle=[jetson-orin-jetpack6]"
    alone = plan("convert=[tensorrt:int8]", bundle)["bundle:jetson-orin-jetpack6"]
    assert "alternative" not in alone.parents
    assert "the recipe makes no tensorrt:float16" in alone.config.no_alternative
    made = plan("convert=[tensorrt:int8, tensorrt:float16]", bundle)
    step = made["bundle:jetson-orin-jetpack6"]
    assert step.config.no_alternative == ""
    assert {role: name for role, name in step.parents.items() if "alternative" in role} == {
        "alternative": "engine:tensorrt:float16",
        "alternative_parent": "engine:onnx:float32",
        "alternative_evaluation": "evaluation:tensorrt:float16",
        "alternative_benchmark": "benchmark",
    }


def test_a_device_that_runs_none_of_the_engines_is_refused_before_any_work() -> None:
    with pytest.raises(UsageError, match=r"jetson-orin-jetpack6 runs tensorrt:int8, .*Make one"):
        plan("bundle=[jetson-orin-jetpack6]")
    with pytest.raises(UsageError, match="unknown bundle target"):
        plan("bundle=[toaster]")


def test_a_compressions_training_is_the_recipes_but_for_its_own_epochs_and_rates() -> None:
    """What is given wins, then what the recipe trained with, then the technique's defaults."""
    document = {
        "name": "tiny",
        "data": {"source": "synthetic"},
        "train": {"epochs": 50, "imbalance": ["sqrt_sampling"], "mixed_precision": True},
        "compress": [
            {"prune": {"keep_macs": 0.5, "recover": {"epochs": 7}}},
            {"qat": {"train": {"augment": "flips"}}},
        ],
    }
    plan = plan_recipe(parse_recipe(document))
    prune, qat = (plan[name].config for name in ("model:1:prune", "model:2:qat"))
    assert (prune.recover.epochs, prune.recover.learning_rate) == (7, 5e-4)
    assert prune.recover.imbalance == qat.train.imbalance == ("sqrt_sampling",)
    assert prune.recover.mixed_precision
    assert not qat.train.mixed_precision
    assert (qat.train.epochs, qat.train.augment) == (2, "flips")
