"""The contract of a bundle, ``bundle.json``, as records."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lesiontk.deploy.runner.documents import BundleIdentity, PointDocument


class ContractError(Exception):
    """``bundle.json`` lacks a key, or has a value of another kind."""

    exit_code = 2


@dataclass(frozen=True)
class Golden:
    """The outputs expected of the device, and their tolerances.

    `file` contains images and probabilities, the latter under a name with `prefix`; `pictures` maps
    image files to the SHA-256 of their prepared pixels. `min_agreement` is the least share of
    images with the same class, `max_mean_drift` the greatest mean difference of a probability.
    """

    file: str
    pictures: Mapping[str, str]
    min_agreement: float
    max_mean_drift: float
    prefix: str = ""


@dataclass(frozen=True)
class Preprocessing:
    """Pixels a side, how an image is cropped, and (module, function) of each filter."""

    image_size: int
    crop_mode: str
    filters: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class OperatingPoint:
    """A frozen threshold on the summed probability of the labels `positive`, and its origin."""

    rule: str
    threshold: float
    positive: tuple[str, ...]

    def to_document(self) -> PointDocument:
        """Return the point as in ``bundle.json``."""
        return {"rule": self.rule, "threshold": self.threshold, "positive": list(self.positive)}


@dataclass(frozen=True)
class Bundle:
    """A bundle in `folder`; `document` is its ``bundle.json``, of which a runtime reads its part.

    `runtimes` maps names to modules, the preferred one first. `content_sha256` identifies the
    engine without the evaluation that its file carries, `bundle_sha256` (of ``SHA256SUMS``) all
    files. `point` and `temperature` are None if none was frozen.
    `research_override` says which gates were not passed, None if all were; the notice says it, too.
    With an `alternative`, a bundle of another engine in the same folder, the device measures which
    one it keeps: this one if its latency is shown to be at most `max_latency_ratio` of the
    alternative's.
    """

    folder: Path
    name: str
    target: str
    engine_file: str
    precision: str
    content_sha256: str
    labels: tuple[str, ...]
    point: OperatingPoint | None
    temperature: float | None
    has_input_checks: bool
    preprocessing: Preprocessing
    golden: Golden
    runtimes: Mapping[str, str]
    notice: str
    research_override: str | None
    bundle_sha256: str
    document: Mapping[str, Any] = field(repr=False)
    alternative: Bundle | None = None
    max_latency_ratio: float = 0.0

    @property
    def identity(self) -> BundleIdentity:
        """What answered, for the documents of answers."""
        return {
            "bundle": self.name,
            "bundle_sha256": self.bundle_sha256,
            "engine_sha256": self.content_sha256,
            "precision": self.precision,
            "research_override": self.research_override,
        }

    @property
    def point_document(self) -> PointDocument | None:
        """The operating point, for the documents of answers."""
        return None if self.point is None else self.point.to_document()

    @property
    def engine(self) -> Path:
        """The engine's file."""
        return self.folder / self.engine_file


def read_bundle(folder: Path, text: str) -> Bundle:
    """Return the bundle of a ``bundle.json``. Raises `ContractError` naming the fault."""
    try:
        return _parse_bundle(folder, json.loads(text))
    except KeyError as error:
        raise ContractError(f"bundle.json has no {error}; make the bundle again") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise ContractError(
            f"bundle.json cannot be read: {error}; make the bundle again"
        ) from error


def _parse_bundle(folder: Path, document: Mapping[str, Any]) -> Bundle:
    """Return the bundle of a document; that of its alternative has other values of some keys."""
    golden, other, point = (document[key] for key in ("golden", "alternative", "operating_point"))
    alternative = None
    if other is not None:
        alternative = _parse_bundle(folder, {**document, **other["changes"], "alternative": None})
    return Bundle(
        folder=folder,
        name=document["name"],
        target=document["target"],
        engine_file=document["engine"]["file"],
        precision=document["engine"]["precision"],
        content_sha256=document["engine"]["content_sha256"],
        labels=tuple(document["labels"]),
        point=None
        if point is None
        else OperatingPoint(point["rule"], point["threshold"], tuple(point["positive"])),
        temperature=document["temperature"],
        has_input_checks=document["input_checks"] is not None,
        preprocessing=_read_preprocessing(document["preprocessing"]),
        golden=Golden(
            golden["file"],
            golden["pictures"],
            float(golden["min_agreement"]),
            float(golden["max_mean_drift"]),
            golden["prefix"],
        ),
        runtimes=document["runtimes"],
        notice=document["notice"],
        research_override=document["research_override"],
        bundle_sha256=hashlib.sha256((folder / "SHA256SUMS").read_bytes()).hexdigest(),
        document=document,
        alternative=alternative,
        max_latency_ratio=0.0 if other is None else float(other["max_latency_ratio"]),
    )


def _read_preprocessing(document: Mapping[str, Any]) -> Preprocessing:
    """Return the preprocessing of its part of ``bundle.json``."""
    return Preprocessing(
        document["image_size"],
        document["crop_mode"],
        tuple((module, function) for module, function in document["filters"]),
    )
