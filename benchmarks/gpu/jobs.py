"""The list of jobs: which network is trained how, on what, taught by whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from lesiontk.errors import UsageError
from lesiontk.files.regular_file import read_regular_text
from lesiontk.files.strict_yaml import BYTES, load_yaml
from lesiontk.recipe import Recipe, explain_invalid, parse_recipe, read_recipe
from lesiontk.stage import StageConfig
from lesiontk.train.feature_losses import read_weights


class Job(StageConfig):
    """One network to train; paths are relative to the file of the list."""

    recipe: Recipe = Field(description="a recipe's path, or what `lesiontk recipe show` writes")
    start: Path = Field(description=".keras file of the network: untrained, of ImageNet or trained")
    images: Path = Field(description="a pack, or a folder images-… of a workspace")
    out: Path = Field(description=".keras file to write")
    teachers: tuple[Path, ...] = Field((), description=".keras files whose mean is learned")
    temperature: float = Field(2.0, gt=0, description="softens the probabilities of the teachers")
    weight: float = Field(0.7, gt=0, le=1, description="of the soft targets beside the labels")

    losses: tuple[str, ...] = Field(
        (), description="between pooled features, as name or name:weight; of the first teacher"
    )
    teacher_views: Literal[1, 4, 8] = Field(
        1, description="mirrored and rotated views whose mean a teacher predicts"
    )

    @model_validator(mode="after")
    def _check_losses(self) -> Self:
        try:
            weights = read_weights(self.losses)
        except UsageError as error:
            raise ValueError(str(error)) from error
        if weights and not self.teachers:
            raise ValueError("losses compare features with a teacher's; expected teachers")
        return self

    @field_validator("recipe", mode="before")
    @classmethod
    def _read_recipe(cls, value: Any) -> Any:
        return read_recipe(value) if isinstance(value, str) else parse_recipe(value)


def read_jobs(file: Path) -> list[Job]:
    """Return the jobs of a YAML or JSON list. Raises `UsageError` for anything else, for a file
    that is not there and for two jobs that write one file."""
    try:
        documents = load_yaml(read_regular_text(file, "list of jobs", limit=BYTES))
    except yaml.YAMLError as error:
        raise UsageError(f"{file.name} is not valid YAML: {error}") from error
    if not isinstance(documents, list) or not documents:
        raise UsageError(f"{file.name} is no list of jobs; expected `- recipe: …` for each.")
    jobs = [_read_job(document, number, file) for number, document in enumerate(documents, 1)]
    outs = [job.out for job in jobs]
    for number, job in enumerate(jobs, 1):
        for path in (job.start, *job.teachers, job.images):
            if not path.exists():
                raise UsageError(f"job {number} names {path}, which does not exist.")
        if outs.count(job.out) > 1:
            raise UsageError(f"two jobs write {job.out}; expected a file for each.")
    return jobs


def _read_job(document: Any, number: int, file: Path) -> Job:
    if not isinstance(document, dict):
        raise UsageError(f"job {number} of {file.name} is {document!r}; expected a mapping.")
    placed = dict(document)
    for key in ("recipe", "start", "images", "out"):
        value = placed.get(key)
        if isinstance(value, str) and (key != "recipe" or (file.parent / value).is_file()):
            placed[key] = str(file.parent / value)
    if isinstance(placed.get("teachers"), list):
        placed["teachers"] = [str(file.parent / str(path)) for path in placed["teachers"]]
    try:
        return Job.model_validate(placed)
    except ValidationError as error:
        raise UsageError(
            f"job {number} of {file.name} is not valid: {explain_invalid(error, Job)}"
        ) from error
