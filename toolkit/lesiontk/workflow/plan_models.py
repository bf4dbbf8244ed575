"""The steps that make models: training or import, each compression, and soft targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from lesiontk.errors import UsageError
from lesiontk.models import ARCHITECTURES
from lesiontk.recipe import Recipe, explain_invalid
from lesiontk.stage import StageConfig, StepId
from lesiontk.stages.parent_predictions import ParentPredictionsConfig
from lesiontk.stages.teacher_predictions import TeacherPredictionsConfig, TeacherPredictionsStage
from lesiontk.stages.train import TrainConfig
from lesiontk.technique import (
    ORIGINS,
    Technique,
    TechniqueInfo,
    check_order,
    find_technique,
)
from lesiontk.workflow.steps import Roles, Step

MODEL, IMAGES = StepId("model"), StepId("images")


def plan_models(recipe: Recipe, data: Sequence[Step]) -> list[Step]:
    """Return the steps of training and compression; `data` are those of the data, the images
    last."""
    origin: tuple[str, StageConfig] = (
        ("import", recipe.imported)
        if recipe.imported
        else ("train", TrainConfig(model=recipe.model, train=recipe.train))
    )
    steps = [Step(MODEL, *origin, {"images": IMAGES})]
    size = recipe.data.image_size
    for number, entry in enumerate(recipe.compress, start=1):
        name = entry.technique
        technique = find_technique(name)
        check_order(name, [step.stage for step in steps])
        config = _read_config(recipe, technique.info, entry.options)
        step = StepId("model", f"{number}:{name}")
        parents = _known_roles(technique.info.accepts, data)
        parents["model"] = steps[-1].name
        if "images" in technique.info.accepts:
            parents["images"] = steps[-1].parents["images"]
        teacher = technique.teacher(config)
        if teacher is not None and teacher.files:
            parents["soft_targets"] = StepId("teacher_predictions", step)
        elif teacher is not None:
            parents["soft_targets"] = StepId("parent_predictions", _find_own_teacher(steps).name)
        smaller = technique.image_size(config)
        if smaller is not None:
            size = _check_size(recipe, name, smaller, size)
            parents["images"] = StepId("images", step)
        steps.append(Step(step, name, config, parents))
    return steps


def _read_config(recipe: Recipe, info: TechniqueInfo, options: Mapping[str, Any]) -> StageConfig:
    try:
        return info.config.model_validate(_complete_options(recipe, info, options))
    except ValidationError as error:
        raise UsageError(
            f"compress.{info.name} is not valid: {explain_invalid(error, info.config)}"
        ) from error


def _complete_options(
    recipe: Recipe, info: TechniqueInfo, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a technique's options, completed from the recipe.

    Its training inherits keys of the network's training (such as those for rare classes), with the
    technique's epochs and rates; other keys have the technique's defaults.
    """
    complete = dict(options)
    for name, keys in info.inherits.items():
        given = options.get(name, {})
        if isinstance(given, Mapping):
            section = info.config.model_fields[name].default.model_dump()
            section.update({key: getattr(recipe.train, key) for key in keys})
            complete[name] = {**section, **given}
    return complete


def _known_roles(accepts: Mapping[str, str], data: Sequence[Step]) -> Roles:
    """Return the data steps that a stage accepts, named like its roles."""
    return {step.name: step.name for step in data if step.name in accepts}


def _technique_of(step: Step) -> Technique | None:
    return None if step.stage in ORIGINS else find_technique(step.stage)


def _find_own_teacher(models: Sequence[Step]) -> Step:
    """Return the last model of a line that can be a teacher."""
    return next(
        step
        for step in reversed(models)
        if (technique := _technique_of(step)) is None or technique.can_teach(step.config)
    )


def _check_size(recipe: Recipe, technique: str, size: int, before: int) -> int:
    """Return the size of a technique's images, if it is smaller and accepted by the network."""
    smallest = 16
    if recipe.imported is None:
        smallest = ARCHITECTURES.get(recipe.model.architecture).min_image_size
    if not smallest <= size < before:
        raise UsageError(
            f"{technique}.image_size is {size}; expected {smallest} or more pixels, and fewer than "
            f"{before}, the current size."
        )
    return size


def plan_smaller_images(models: Sequence[Step], images: Step) -> list[Step]:
    """Return the images of each model with smaller ones than the model before it."""
    return [
        replace(
            images,
            name=model.parents["images"],
            config=images.config.model_copy(update={"image_size": size}),
        )
        for model in models
        if (technique := _technique_of(model)) is not None
        and (size := technique.image_size(model.config)) is not None
    ]


def insert_predictions(recipe: Recipe, models: Sequence[Step], data: Sequence[Step]) -> list[Step]:
    """Return the models, and before each with a teacher the teacher's predictions.

    A model of the same line predicts its own images, independent of the size of its child's.
    """
    made: dict[str, Step] = {step.name: step for step in models}
    steps: list[Step] = []
    for model in models:
        technique = _technique_of(model)
        teacher = technique.teacher(model.config) if technique else None
        soft_targets = model.parents.get("soft_targets")
        if teacher is not None and teacher.files and soft_targets is not None:
            needs_step = TeacherPredictionsConfig(
                files=teacher.files,
                path=recipe.data.path,
                views=teacher.views,
                features=teacher.features,
            )
            roles = _known_roles(TeacherPredictionsStage.info.accepts, data)
            steps.append(Step(soft_targets, "teacher_predictions", needs_step, roles))
        elif soft_targets is not None and soft_targets not in (step.name for step in steps):
            prediction_step = made[soft_targets.target]
            roles = {"model": prediction_step.name, "images": prediction_step.parents["images"]}
            steps.append(Step(soft_targets, "parent_predictions", ParentPredictionsConfig(), roles))
        steps.append(model)
    return steps
