"""Stage: the evaluations of all folds of a cross-validation, put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

from lesiontk.data.dealt_split import DealtSplit
from lesiontk.data.images import write_rows
from lesiontk.data.inspection import Inspection
from lesiontk.document import write_record
from lesiontk.evaluate.cross_validation import (
    CrossValidation,
    Fold,
    FoldPredictions,
    check_folds,
    pool_engine,
)
from lesiontk.evaluate.operating_point import find_positive
from lesiontk.recipe import EvaluateRule
from lesiontk.records import SUBSETS, Artefact
from lesiontk.report.cross_validation import write_page
from lesiontk.stage import Context, EngineName, Stage, StageConfig, StageInfo, StageOutput, StepId
from lesiontk.stages.bench import find_reference
from lesiontk.stages.evaluate import read_operating_point, read_predictions

DOCUMENT, PREDICTIONS, PAGE = "cross_validation.json", "predictions.csv", "report.html"


class FoldRole(StepId):
    """The role of a fold's split, or of an engine's evaluation in it, as a parent."""

    fold: int
    engine: EngineName | None

    @classmethod
    def of_fold(cls, kind: str, fold: int, engine: EngineName | None = None) -> Self:
        """Return the role of a fold's artefact of this kind."""
        name = f"fold{fold}"
        role = cls(kind, name) if engine is None else cls(kind, engine, name)
        role.fold, role.engine = fold, engine
        return role


class CrossValidateConfig(StageConfig):
    """The recipe's name and description, and the rules of the intervals."""

    name: str
    description: str = ""
    statistics: EvaluateRule


class CrossValidateStage(Stage):
    """Produces ``cross_validation.json``, ``report.html`` and a table of all predictions.

    The roles of its parents are `FoldRole`. Raises `DataError` unless the folds test every image
    of their split exactly once.
    """

    info: ClassVar[StageInfo] = StageInfo(
        name="cross_validate",
        version=1,
        accepts={"inspection": "inspection", "split": "split", "evaluation": "evaluation"},
        produces="cross_validation",
        config=CrossValidateConfig,
        schema_version=CrossValidation.SCHEMA,
        tools=("numpy", "scipy"),
    )

    def run(
        self, parents: Mapping[str, Artefact], config: CrossValidateConfig, context: Context
    ) -> StageOutput:
        roles = sorted((r for r in parents if isinstance(r, FoldRole)), key=lambda r: r.fold)
        splits = {r.fold: parents[r].read_facts(DealtSplit) for r in roles if r.kind == "split"}
        engines: dict[EngineName, list[FoldPredictions]] = {}
        for role in roles:
            if role.engine is not None:
                engines.setdefault(role.engine, []).append(_read_fold(parents[role]))
        any_split, any_engine = next(iter(splits.values())), next(iter(engines.values()))
        task = any_split.task
        for folds in engines.values():
            check_folds(folds, sum(_count(any_split.images, subset) for subset in SUBSETS))
        training = [_count(split.lesions, "train") for split in splits.values()]
        pooled = []
        with context.progress.task("putting folds together", len(engines)) as advance:
            for name, folds in engines.items():
                parent = find_reference(name, engines)
                pair = None if parent is None else (parent, engines[parent])
                pooled.append(
                    pool_engine(
                        name, folds, task.labels, task.critical, training, config.statistics, pair
                    )
                )
                advance(1)
        result = CrossValidation(
            recipe=config.name,
            description=config.description,
            task=task.name,
            labels=task.labels,
            critical=task.critical,
            positive=any_engine[0].point.positive,
            images=sum(len(fold.y_true) for fold in any_engine),
            lesions=sum(len({*fold.groups}) for fold in any_engine),
            images_by_label={
                label: sum(int((fold.y_true == index).sum()) for fold in any_engine)
                for index, label in enumerate(task.labels)
            },
            folds=tuple(
                _describe_fold(number, split, fold)
                for (number, split), fold in zip(splits.items(), any_engine, strict=True)
            ),
            engines=tuple(pooled),
            confidence=config.statistics.confidence,
            resamples=config.statistics.resamples,
            seed=config.statistics.seed,
            synthetic=parents["inspection"].read_facts(Inspection).source == "synthetic",
            lesion_ids_known=any_split.lesion_ids_known,
        )
        write_record(context.directory / DOCUMENT, result)
        _write_predictions(context.directory / PREDICTIONS, engines, task.labels)
        write_page(result, context.directory / PAGE)
        facts = {"folds": len(splits), "images": result.images, "lesions": result.lesions}
        return StageOutput(facts, auxiliary=(PAGE,))


def read_cross_validation(artefact: Artefact) -> CrossValidation:
    """Return a cross-validation. Raises `DataError` for one of another version of lesiontk."""
    return artefact.read(DOCUMENT, CrossValidation)


def _read_fold(evaluation: Artefact) -> FoldPredictions:
    truth, probabilities, groups, image_ids, _ = read_predictions(evaluation)
    return FoldPredictions(
        truth, probabilities, image_ids, groups, read_operating_point(evaluation)
    )


def _count(by_subset: Mapping[str, Mapping[str, int]], subset: str) -> int:
    return sum(by_subset[subset].values())


def _describe_fold(number: int, split: DealtSplit, tested: FoldPredictions) -> Fold:
    labels, positive = split.task.labels, tested.point.positive
    return Fold(
        fold=number,
        split_hash=split.split_hash,
        training_images=_count(split.images, "train"),
        training_lesions=_count(split.lesions, "train"),
        validation_images=_count(split.images, "validation"),
        validation_lesions=_count(split.lesions, "validation"),
        images=len(tested.y_true),
        lesions=len({*tested.groups}),
        positives=int(find_positive(tested.y_true, labels, positive).sum()),
    )


def _write_predictions(
    path: Path, engines: Mapping[EngineName, Sequence[FoldPredictions]], labels: Sequence[str]
) -> None:
    """Write a row per engine and image; nine digits restore the exact float32."""
    names = [f"p_{label}" for label in labels]
    write_rows(
        path,
        [
            {
                "engine": engine,
                "fold": number,
                "image_id": fold.image_ids[row],
                "group": fold.groups[row],
                "label": labels[fold.y_true[row]],
                **{n: f"{p:.9g}" for n, p in zip(names, outputs, strict=True)},
            }
            for engine, folds in engines.items()
            for number, fold in enumerate(folds, start=1)
            for row, outputs in enumerate(fold.probabilities)
        ],
        ("engine", "fold", "image_id", "group", "label", *names),
    )
