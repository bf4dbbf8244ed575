"""Evaluation of an engine: on the test split of its model, or on a folder with labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lesiontk.backends import is_engine_file, open_any
from lesiontk.backends.engine_facts import EngineFacts
from lesiontk.backends.execution import name_emulator
from lesiontk.backends.foreign import RECIPE, ForeignDescription
from lesiontk.backends.reference_outputs import engine_file
from lesiontk.backends.stamp import stamp
from lesiontk.data.decode import ImageError
from lesiontk.data.preprocess import preprocess_image
from lesiontk.data.reader import ImageReader, decode_many
from lesiontk.data.sources import SOURCES, detect_source
from lesiontk.data.sources.labelled import read_labelled_folder
from lesiontk.data.tasks import Task, list_tasks, load_task, task_of_engine
from lesiontk.errors import DataError, UsageError
from lesiontk.evaluate.assessment import Assessment
from lesiontk.evaluate.default_gates import check_gates_of_task, expand_gates
from lesiontk.evaluate.evaluation import EngineEvaluation, ExternalEvaluation, evaluate_engine
from lesiontk.evaluate.findings import describe_evaluation
from lesiontk.evaluate.loss_bounds import Points, Predictions
from lesiontk.evaluate.operating_point import DEFAULT, DEFAULT_THRESHOLD, GIVEN, OperatingPoint
from lesiontk.evaluate.subgroups import describe_people
from lesiontk.progress import Progress
from lesiontk.recipe import EvaluateRule, Recipe, override_recipe
from lesiontk.records import Artefact
from lesiontk.stage import StepId
from lesiontk.stages.evaluate import read_evaluation, read_operating_point
from lesiontk.stages.known_splits import find_split
from lesiontk.store import Store
from lesiontk.workflow.evaluation_gates import judge_evaluation, judge_file
from lesiontk.workflow.lineage import (
    derivation_of,
    find_artefact,
    find_assessment,
    intact,
    locate_engine,
    model_of,
)
from lesiontk.workflow.resume import continue_from
from lesiontk.workflow.runner import build_step


def evaluate_artefact(store: Store, engine: Artefact, overrides: Iterable[str] = ()) -> Artefact:
    """Evaluate an engine of the workspace on the test subset of its own split."""
    model = model_of(store, intact(store, engine))
    target = engine.read_facts(EngineFacts).target
    line = {part.read_facts(EngineFacts).target: part for part in derivation_of(store, engine)}
    plan, done = continue_from(store, model, [target], overrides, line)
    return build_step(plan, StepId("evaluation", target), store, done)


def evaluate_reference(
    store: Store,
    reference: str,
    images: Path | None,
    labels: Path | None,
    overrides: Iterable[str] = (),
    *,
    include_seen: bool = False,
    threshold: float | None = None,
    gates: Sequence[str] = (),
) -> EngineEvaluation:
    """Evaluate an engine on its own test split, or on given images and labels.

    `gates` are tested if possible: against the parent only on the own test split. Given images that
    the engine was trained or validated on are left out and counted, if its split is known; with
    `include_seen` they are included. The threshold is the given one, else the one frozen on
    validation, of the evaluation in the workspace or of the file, else 0.5.
    """
    if is_engine_file(reference):
        engine = find_artefact(Path(reference))
        if engine is not None and engine.path.parent == store.workspace.resolve():
            reference = engine.name
    if images is None:
        if labels is not None:
            raise UsageError("--labels requires --images; expected both.")
        if threshold is not None:
            raise UsageError(
                "--threshold requires --images; expected both, because the test split is judged "
                "at the threshold frozen on validation (--set evaluate.threshold=RULE)."
            )
        if is_engine_file(reference):
            raise UsageError(
                f"{reference} is a file outside the workspace: its test split is not known. Give "
                "--images DIR --labels CSV."
            )
        engine = store.resolve(reference, "engine")
        evaluation = evaluate_artefact(store, engine, overrides)
        verdicts = judge_evaluation(store, engine, evaluation, gates)
        return replace(read_evaluation(evaluation), gate=verdicts)
    if threshold is None and not is_engine_file(reference):
        engine = store.resolve(reference, "engine")
        evaluation = evaluate_artefact(store, engine, overrides)
        return evaluate_external(
            store, engine, evaluation, images, labels, include_seen=include_seen, gates=gates
        )
    return evaluate_folder(
        locate_engine(store, reference),
        images,
        labels,
        rules_from(overrides).evaluate,
        store.progress,
        splits=store.list_artefacts("split"),
        include_seen=include_seen,
        point=threshold,
        gates=gates,
    )


def evaluate_external(
    store: Store,
    engine: Artefact,
    evaluation: Artefact,
    images: Path,
    labels: Path | None = None,
    *,
    include_seen: bool = False,
    gates: Sequence[str] = (),
) -> ExternalEvaluation:
    """Evaluate an engine on external images at the frozen threshold of `evaluation`.

    `evaluation` is that of this engine; its bootstrap settings apply, too. Raises `DataError` if it
    is of another engine or has no threshold.
    """
    judged = evaluation.manifest.parents["engine"].content
    if judged != engine.content:
        raise DataError(
            f"{evaluation.name} is the evaluation of another engine; expected that of "
            f"{engine.name}."
        )
    return evaluate_folder(
        engine_file(intact(store, engine)),
        images,
        labels,
        EvaluateRule(**evaluation.manifest.config),
        store.progress,
        splits=store.list_artefacts("split"),
        include_seen=include_seen,
        point=read_operating_point(evaluation),
        temperature=evaluation.facts.get("temperature"),
        gates=gates,
    )


def evaluate_folder(
    engine_path: Path,
    images: Path,
    labels: Path | None,
    rule: EvaluateRule,
    progress: Progress,
    *,
    splits: Iterable[Artefact] = (),
    include_seen: bool = False,
    max_failures: float = 0.01,
    point: OperatingPoint | float | None = None,
    temperature: float | None = None,
    gates: Sequence[str] = (),
    foreign: ForeignDescription | None = None,
) -> ExternalEvaluation:
    """Evaluate an engine file on a folder of images; intervals resample lesions where known.

    `splits` are those of the workspace, to find the engine's own. `point` is the operating point
    that was frozen on validation, or a threshold; without either, that of the file, or 0.5.
    `temperature` is the fitted one, or the file's. Raises `DataError` if a diagnosis is not of the
    engine's task, or too many images are broken.
    """
    with open_any(engine_path, foreign) as engine, ImageReader(images) as reader:
        spec = engine.spec
        task = task_of_labels(spec.labels) if spec.recipe == RECIPE else task_of_engine(spec)
        check_gates_of_task(gates, task.name, task.labels, task.positive)
        in_file = engine.assessment or Assessment()
        point = in_file.operating_point if point is None else point
        temperature = in_file.temperature if temperature is None else temperature
        if not isinstance(point, OperatingPoint):
            rule_of_point = DEFAULT if point is None else GIVEN
            value = DEFAULT_THRESHOLD if point is None else point
            point = OperatingPoint(rule_of_point, value, task.positive)
        emulated = name_emulator(engine.describe_execution())
        table = (
            read_labelled_folder(images, labels)
            if labels is not None
            else SOURCES.get(detect_source(images))().read(images)
        )
        split = find_split(spec.split_hash, splits)
        seen: Counter[str] = Counter()
        records = []
        for record in table.records:
            subset = split.subset_of(record) if split else None
            if subset in ("train", "validation"):
                seen[subset] += 1
                if not include_seen:
                    continue
            records.append(record)
        if not records:
            raise DataError(
                f"all {len(table.records)} images were used to train or validate "
                f"{engine_path.name}; expected others, for on these it would look better than it "
                "is. --include-seen evaluates it on them all the same."
            )
        truth, outputs, groups, failures = [], [], [], []
        people = []
        with progress.task("evaluating", len(records)) as advance:
            for index, result in decode_many(
                reader,
                records,
                workers=2,
                transform=lambda image: preprocess_image(image, spec.preprocessing),
                advance=advance,
                max_failures=max_failures,
            ):
                record = records[index]
                if isinstance(result, ImageError):
                    failures.append({"image_id": record.image_id, "reason": result.reason})
                    continue
                truth.append(task.label_index(record.diagnosis, record.coarser))
                outputs.append(engine.predict(result[np.newaxis])[0])
                people.append(record)
                groups.append(record.patient_id or record.lesion_id or record.image_id)
    y_true, probabilities = np.array(truth, dtype=np.int64), np.stack(outputs)
    predictions = Predictions(
        y_true, probabilities, task.labels, groups, task.positive, points=Points(child=point)
    )
    evaluation = evaluate_engine(
        f"{spec.backend}:{spec.precision}",
        task,
        point,
        y_true,
        probabilities,
        groups,
        rule,
        temperature,
        describe_people(people),
    )
    judged = replace(
        evaluation,
        emulated_by=emulated,
        gate=judge_file(engine_path, predictions, expand_gates(gates, task.positive), rule),
    )
    return ExternalEvaluation(
        **judged.field_values(),
        recipe=spec.recipe,
        lesion_ids_known=table.lesion_ids_known,
        split_known=split is not None and not spec.may_have_seen_test,
        seen_images=dict(seen),
        seen_included=include_seen,
        failures=tuple(failures),
        missing_files=tuple(table.missing),
        licence=table.licence,
        citation=table.citation,
    )


def rules_from(overrides: Iterable[str]) -> Recipe:
    """Return the defaults with overrides, for engines without a recipe.

    The only gates are those of the overrides.
    """
    return override_recipe(Recipe(name="engine_files", gate=()), overrides)


def task_of_labels(labels: Sequence[str]) -> Task:
    """Return the task with these labels, in their order. Raises `UsageError` with the known
    ones."""
    tasks = [load_task(name) for name in list_tasks()]
    for task in tasks:
        if task.labels == tuple(labels):
            return task
    known = "; ".join(f"{task.name}: {','.join(task.labels)}" for task in tasks)
    raise UsageError(
        f"the outputs are named {','.join(labels)}; expected the labels of a task, in the order of "
        f"the outputs, with --labels: {known}."
    )


def check_export(store: Store, reference: str, images: Path | None, out: Path) -> None:
    """Raise `UsageError` unless an evaluation on the engine's test split can be written to
    `out`."""
    if images is not None:
        raise UsageError(
            "--out was specified with --images; an engine file contains the results on its own "
            "test split."
        )
    suffix = locate_engine(store, reference).suffix
    if out.suffix != suffix:
        raise UsageError(f"--out is {out}; expected a name that ends in {suffix}.")
    if out.exists():
        raise UsageError(f"{out} exists; expected a new file.")


def export_engine(store: Store, reference: str, out: Path) -> Assessment:
    """Write an evaluated engine of the workspace as a file with its assessment."""
    assessment = find_assessment(store, reference)
    if assessment is None:
        raise UsageError(f"{reference} was not evaluated; run `lesiontk evaluate {reference}`.")
    out.parent.mkdir(parents=True, exist_ok=True)
    return stamp(locate_engine(store, reference), assessment, out)


def list_notes(evaluation: EngineEvaluation) -> list[str]:
    """Return the notes on an evaluation."""
    notes = describe_evaluation(evaluation)
    if isinstance(evaluation, ExternalEvaluation):
        if evaluation.seen_images:
            counts = ", ".join(f"{n} {subset}" for subset, n in evaluation.seen_images.items())
            verb = "count" if evaluation.seen_included else "are left out"
            notes.append(f"images of the engine's own split {verb}: {counts}")
        if not evaluation.split_known:
            notes.append("the engine's split is unknown; it may have been trained on these images")
        if not evaluation.lesion_ids_known:
            notes.append(
                "lesion ids are not known for every image; one without counts as a separate "
                "lesion, and the intervals are too narrow if lesions repeat"
            )
    if evaluation.may_have_seen_test:
        notes.append(
            "the model was trained elsewhere; whether it was trained on these test images is not "
            "known"
        )
    if evaluation.operating_point.rule == "default":
        notes.append(
            "the engine file contains no threshold; sensitivity and specificity are at "
            f"{evaluation.operating_point.threshold}. Specify the one frozen on validation with "
            "--threshold"
        )
    return notes
