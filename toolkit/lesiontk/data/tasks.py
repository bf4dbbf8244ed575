"""Classification tasks: labels and the mapping of diagnoses to them. Tasks are data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from lesiontk.document import Record
from lesiontk.errors import DataError, UsageError, suggest
from lesiontk.files.regular_file import read_regular_text
from lesiontk.files.strict_yaml import BYTES, load_yaml
from lesiontk.records import EngineSpec

_TASK_KEYS = ("title", "labels", "critical", "mapping")
_OPTIONAL_KEYS = ("positive", "aliases")
_PACKAGED = "tasks.yaml"


@dataclass(frozen=True, slots=True)
class Task(Record):
    """Labels in the order of a model's outputs, and the label of every diagnosis.

    `critical` is the label whose sensitivity has priority. `mapping` is diagnosis -> label and
    `aliases` synonym -> diagnosis; names in both are normalized by `normalize_diagnosis`.
    `positive` are the labels that a threshold separates from the rest (the malignant ones), in
    the order of the labels; by default only the critical label.
    """

    name: str
    title: str
    labels: tuple[str, ...]
    critical: str
    mapping: Mapping[str, str]
    aliases: Mapping[str, str] = field(default_factory=dict)
    positive: tuple[str, ...] = ()

    @classmethod
    def upgrade(cls, document: dict[str, Any]) -> dict[str, Any]:
        """Return a definition; one without `positive` gets that of the packaged task it equals."""
        if "positive" in document or document.get("name") not in list_tasks():
            return document
        packaged = load_task(document["name"]).to_document()
        same = all(document.get(key) == packaged[key] for key in ("labels", "mapping"))
        return {**document, "positive": packaged["positive"]} if same else document

    def __post_init__(self) -> None:
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise DataError(
                f"task {self.name}: labels are {list(self.labels)}; expected two or more different "
                "names."
            )
        if self.critical not in self.labels:
            raise self._wrong_label("critical", self.critical)
        for diagnosis, label in self.mapping.items():
            if label not in self.labels:
                raise self._wrong_label(f"mapping.{diagnosis}", label)
        unreached = [label for label in self.labels if label not in self.mapping.values()]
        if unreached:
            raise DataError(
                f"task {self.name}: no diagnosis is mapped to {', '.join(unreached)}; expected at "
                "least one for each label. Add it to the mapping, or remove the label."
            )
        chosen = self.positive or (self.critical,)
        for label in chosen:
            if label not in self.labels:
                raise self._wrong_label("positive", label)
        if self.critical not in chosen or len(set(chosen)) == len(self.labels):
            raise DataError(
                f"task {self.name}: positive is {list(chosen)}; expected {self.critical} (the "
                "critical label) among them, and not all labels."
            )
        in_order = tuple(label for label in self.labels if label in chosen)
        object.__setattr__(self, "positive", in_order)  # frozen, and one spelling of one group

    def label_index(self, diagnosis: str, coarser: Iterable[str] = ()) -> int:
        """Return the index in `labels` of a diagnosis, by code, long name or alias.

        If the task does not contain it, the first of the `coarser` names that it contains is used.
        Raises `DataError` with the nearest known name if it contains none.
        """
        name = normalize_diagnosis(diagnosis)
        label = next(filter(None, map(self._label_of, (name, *coarser))), None)
        if label is None:
            known = [
                *self.mapping,
                *(a for a, code in self.aliases.items() if code in self.mapping),
            ]
            raise DataError(
                f"diagnosis {diagnosis!r} has no label in the task {self.name}; expected one of "
                f"{', '.join(self.mapping)}, or one of their synonyms.{suggest(name, known)} "
                "Remove its images, or map it in your own task file: `lesiontk task new FILE "
                "--data DIR` writes one."
            )
        return self.labels.index(label)

    def _label_of(self, diagnosis: str) -> str | None:
        name = normalize_diagnosis(diagnosis)
        return self.mapping.get(name) or self.mapping.get(self.aliases.get(name, ""))

    def _wrong_label(self, key: str, label: str) -> DataError:
        return DataError(
            f"task {self.name}: {key} is {label!r}; expected one of the labels "
            f"{', '.join(self.labels)}.{suggest(label, self.labels)}"
        )


def task_of_engine(spec: EngineSpec) -> Task:
    """Return the task stored in an engine; older engines store only its name.

    Raises `UsageError` for an unknown name, `DataError` if engine and task differ in their labels.
    """
    definition = spec.extra.get("task_definition")
    task = Task.from_document(definition) if definition else load_task(spec.task)
    if task.labels != spec.labels:
        raise DataError(
            f"the engine's labels are {', '.join(spec.labels)}; expected those of its task "
            f"{task.name}, {', '.join(task.labels)}. Convert the model again."
        )
    return task


def sum_labels(labels: tuple[str, ...], task: Task) -> NDArray[np.float32]:
    """Return the matrix that sums a teacher's labels to the student's, float32 [teacher, student].

    A teacher of single diagnoses can have a student with several diagnoses per label. Raises
    `DataError` for labels that are unknown to the task, or if a label of the task gets none.
    """
    sums = np.zeros((len(labels), len(task.labels)), np.float32)
    for row, label in enumerate(labels):
        try:
            sums[row, task.label_index(label)] = 1
        except DataError as error:
            raise DataError(
                f"the teacher's labels are {', '.join(labels)}, and {label!r} is not among "
                f"{', '.join(task.labels)}; expected the student's, or diagnoses of its task "
                f"{task.name}."
            ) from error
    if not sums.any(axis=0).all():
        raise DataError(
            f"the teacher's labels are {', '.join(labels)}; expected at least one for each of the "
            f"student's, {', '.join(task.labels)}."
        )
    return sums


def normalize_diagnosis(name: str) -> str:
    """Return a name in lower case with single spaces for spaces, hyphens and underscores."""
    return (
        re.sub(r"[\s_-]+", " ", name.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
        .strip()
        .lower()
    )


def canonical_diagnosis(name: str) -> str:
    """Return the code of a diagnosis in lesiontk's aliases, else its normalized spelling."""
    normalized = normalize_diagnosis(name)
    return _packaged_aliases().get(normalized, normalized)


@cache
def _packaged_aliases() -> dict[str, str]:
    return _aliases_from_document(_packaged()["aliases"], _PACKAGED)


def list_tasks() -> tuple[str, ...]:
    """Return the names of the tasks that come with lesiontk."""
    return tuple(_packaged()["tasks"])


def load_task(name_or_path: str | Path) -> Task:
    """Return a packaged task by name, or a task from a YAML file.

    A path ending in ``.yaml`` or ``.yml`` is a file with the keys title, labels, critical, mapping
    and optionally positive (list of labels) and aliases (diagnosis: list of synonyms), in addition
    to lesiontk's own aliases. Raises `UsageError` for an unknown name and `DataError` for a file
    that is missing or invalid.
    """
    path = Path(name_or_path)
    if path.suffix.lower() in (".yaml", ".yml"):
        text = read_regular_text(path, "task file", limit=BYTES)
        document = _document_from_yaml(text, str(path))
        own = _aliases_from_document(document.pop("aliases", {}), str(path))
        return _task_from_document(path.stem, document, own, str(path))
    name = str(name_or_path)
    tasks = _packaged()["tasks"]
    if name not in tasks:
        raise UsageError(
            f"unknown task {name!r}; known are {', '.join(tasks)}, and any path to a .yaml file."
            + suggest(name, tasks)
        )
    return _task_from_document(name, tasks[name], {}, _PACKAGED)


@cache
def _packaged() -> dict[str, Any]:
    text = resources.files("lesiontk.data").joinpath(_PACKAGED).read_text(encoding="utf-8")
    return _document_from_yaml(text, _PACKAGED)


def _task_from_document(name: str, document: Any, own: dict[str, str], where: str) -> Task:
    if not isinstance(document, dict):
        raise DataError(f"{where}: {name} is {document!r}; expected {', '.join(_TASK_KEYS)}.")
    for key in document:
        if key not in (*_TASK_KEYS, "positive"):  # aliases were read before
            raise DataError(
                f"{where}: unknown key {key!r}; expected "
                f"{', '.join((*_TASK_KEYS, *_OPTIONAL_KEYS))}."
                + suggest(str(key), (*_TASK_KEYS, *_OPTIONAL_KEYS))
            )
    for key in _TASK_KEYS:
        if key not in document:
            raise DataError(f"{where}: {key} is missing; expected {', '.join(_TASK_KEYS)}.")
    labels, mapping = document["labels"], document["mapping"]
    positive = document.get("positive", [])
    if not isinstance(labels, list) or not isinstance(mapping, dict):
        raise DataError(f"{where}: expected labels as a list and mapping as diagnosis: label.")
    if not isinstance(positive, list) or ("positive" in document and not positive):
        raise DataError(f"{where}: positive is {positive!r}; expected a list of labels.")
    normalized = _normalized(
        {_text(key, where): _text(mapping[key], where) for key in mapping}, where
    )
    for alias, diagnosis in own.items():
        if diagnosis not in normalized:
            raise DataError(
                f"{where}: {alias!r} is an alias of {diagnosis!r}, which is not in the mapping; "
                f"expected one of {', '.join(normalized)}.{suggest(diagnosis, normalized)}"
            )
    return Task(
        name=name,
        title=_text(document["title"], where),
        labels=tuple(_text(label, where) for label in labels),
        critical=_text(document["critical"], where),
        mapping=normalized,
        aliases={**_packaged_aliases(), **own},
        positive=tuple(_text(label, where) for label in positive),
    )


def _aliases_from_document(document: Any, where: str) -> dict[str, str]:
    """Return synonym -> diagnosis."""
    if not isinstance(document, dict) or not all(isinstance(v, list) for v in document.values()):
        raise DataError(f"{where}: expected aliases as diagnosis: [synonym, ...].")
    pairs: dict[str, str] = {}
    for diagnosis, names in document.items():
        for name in names:
            known = pairs.setdefault(_text(name, where), _text(diagnosis, where))
            if known != diagnosis:
                raise DataError(
                    f"{where}: {name!r} is an alias of {known} and of {diagnosis}; expected one."
                )
    return {alias: normalize_diagnosis(code) for alias, code in _normalized(pairs, where).items()}


def _normalized(pairs: dict[str, str], where: str) -> dict[str, str]:
    normalized: dict[str, str] = {}
    for name, value in pairs.items():
        if normalized.setdefault(normalize_diagnosis(name), value) != value:
            raise DataError(
                f"{where}: duplicate key {name!r} in two spellings, for {value} and for "
                f"{normalized[normalize_diagnosis(name)]}; expected one."
            )
    return normalized


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError(
            f"{where}: received {value!r}; expected text. YAML reads no, on and 0 as other "
            "types: put them in quotes."
        )
    return value.strip()


def _document_from_yaml(text: str, where: str) -> dict[str, Any]:
    try:
        document = load_yaml(text)
    except yaml.YAMLError as error:
        raise DataError(f"{where} is not valid YAML: {error}. Correct it there.") from error
    if not isinstance(document, dict):
        raise DataError(f"{where} contains {type(document).__name__}; expected keys and values.")
    return document
