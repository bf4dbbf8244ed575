"""Writing of the folder that runs an engine on a device, with a self-test."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesiontk.backends import find_backend, open_engine
from lesiontk.backends.stamp import stamp
from lesiontk.data.preprocess import preprocess_image
from lesiontk.data.synthetic.dataset import render_view
from lesiontk.data.tasks import load_task, task_of_engine
from lesiontk.deploy.card import render_bundle_card
from lesiontk.deploy.change_plan import CHANGE_PLAN, render_change_plan
from lesiontk.deploy.file_names import (
    BUNDLE,
    CARD,
    CHECKSUMS,
    GOLDEN,
    PICTURES,
    README,
    REQUIREMENTS,
)
from lesiontk.deploy.readme import describe_choice, render_readme
from lesiontk.deploy.runner_files import read_requirements, write_runner
from lesiontk.deploy.sbom import SBOM, render_sbom
from lesiontk.deploy.service_files import write_service_files
from lesiontk.deploy.target import TENSORRT, BundleTarget
from lesiontk.document import Record
from lesiontk.errors import UsageError
from lesiontk.evaluate.assessment import Assessment
from lesiontk.evaluate.fit_input_checks import InputChecks
from lesiontk.evaluate.golden_images import golden_images
from lesiontk.evaluate.input_checks import ARRAYS, DOCUMENT, STATUSES, check_input, load_checks
from lesiontk.evaluate.verdict import GateVerdict, describe_unpassed
from lesiontk.files.hashing import hash_file
from lesiontk.records import EngineSpec, Preprocessing

SHAPES = {"wide.png": (97, 160), "tall.png": (150, 113), "square.png": (128, 128)}
"""Name -> (height, width) of the images that test crop and resize, byte for byte."""
VIEWS = 7
"""Procedural images of each diagnosis."""


@dataclass(frozen=True, slots=True)
class EngineAssessment:
    """The facts of an engine beyond its file: its recipe's description and its evaluation.

    Without an `assessment` the one in the file is used. `threshold` replaces the frozen one.
    `verdicts` are those of its acceptance gates; unless all passed, the bundle is for research
    alone, and says so. `checks` is the folder of its input checks, and `refusals` are whom they
    refuse, if known.
    """

    description: str = ""
    assessment: Assessment | None = None
    threshold: float | None = None
    verdicts: tuple[GateVerdict, ...] = ()
    checks: Path | None = None
    refusals: InputChecks | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """The tolerances of a device's outputs: at least `min_agreement` of the golden images have the
    expected class, and probabilities differ by at most `max_mean_drift` on average."""

    min_agreement: float
    max_mean_drift: float


@dataclass(frozen=True, slots=True)
class Alternative:
    """A further engine of the same model, in the file `path`, of which the device keeps one.

    Its outputs are held to those of the full-precision `parent` file, within `limits`. The device
    keeps the first engine only if its latency is at most `max_latency_ratio` of this one's.
    """

    path: Path
    parent: Path
    limits: Limits
    max_latency_ratio: float
    assessment: Assessment | None = None
    verdicts: tuple[GateVerdict, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFacts(Record):
    """The bundle of the engine `file` for a device `target`, of `size_bytes` in all.

    `engine` is the engine's target, `runtimes` those that can run it, the preferred one first.
    `alternative` is the target of the other engine that the bundle contains, if any, and
    `no_alternative` why it has none although the device could choose. `details` are what the
    device's own tools found.
    """

    SCHEMA: ClassVar[int] = 3

    target: str
    engine: str
    file: str
    runtimes: tuple[str, ...]
    golden_images: int
    size_bytes: int
    alternative: str | None = None
    no_alternative: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


def write_bundle(
    folder: Path,
    engine_path: Path,
    target: BundleTarget,
    assessed: EngineAssessment,
    limits: Limits,
    alternative: Alternative | str = "",
) -> BundleFacts:
    """Write the bundle of an engine file into an empty folder, and return its facts.

    `limits` are the same for every device and runtime. `alternative` is a further engine, or why
    there is none.

    Raises `UsageError` if the target does not run the engine, `DataError` if it rejects the graph.
    """
    with open_engine(engine_path) as engine:
        spec = engine.spec
        target.choose([f"{spec.backend}:{spec.precision}"])
        images = make_golden_images(spec.preprocessing)
        outputs = engine.predict(images)
        execution = [part.to_document() for part in engine.describe_execution()]
        assessment = assessed.assessment or engine.assessment
    if assessed.threshold is not None:
        positive = task_of_engine(spec).positive
        assessment = (assessment or Assessment()).with_threshold(assessed.threshold, positive)
    file = target.place(engine_path.name, spec)
    assessment = place_engine(engine_path, folder / file, assessed.checks, assessment)
    golden: dict[str, NDArray[Any]] = {"images": images, "probabilities": outputs}
    if assessed.checks is not None:
        for name in (DOCUMENT, ARRAYS):
            shutil.copyfile(assessed.checks / name, folder / name)
        golden["statuses"] = find_statuses(folder, file, images)
    np.savez_compressed(folder / GOLDEN, **golden)  # type: ignore[arg-type]
    runtimes = target.runtimes(spec)
    filters = write_runner(folder, runtimes, spec.preprocessing.enhance)
    contents = target.add_files(folder, folder / file, spec)
    point = assessment.operating_point if assessment else None
    document = {
        "format": 1,
        "name": f"{spec.recipe} {spec.backend}:{spec.precision} for {target.name}",
        "target": target.name,
        "lesiontk": version("lesiontk"),
        "recipe": spec.recipe,
        "task": spec.task,
        **_describe_engine(file, engine_path, spec, assessment, assessed.verdicts),
        "runtimes": {runtime.name: runtime.module for runtime in runtimes},
        "labels": list(spec.labels),
        "input_checks": DOCUMENT if assessed.checks else None,
        "preprocessing": {
            "image_size": spec.preprocessing.image_size,
            "crop_mode": spec.preprocessing.crop_mode,
            "interpolation": spec.preprocessing.interpolation,
            "filters": filters,
        },
        "golden": {
            "file": GOLDEN,
            "answered_by": execution,
            "pictures": write_pictures(folder, spec.preprocessing),
            "min_agreement": limits.min_agreement,
            "max_mean_drift": limits.max_mean_drift,
            "prefix": "",
        },
        "split_hash": spec.split_hash,
        "licence": spec.licence,
        "alternative": None,
        **contents.bundle,
    }
    engines = {file: (spec, assessment)}
    other = None
    if isinstance(alternative, Alternative):
        known = _add_alternative(folder, alternative, target, assessed, document, golden)
        engines[alternative.path.name] = known
        other = f"{known[0].backend}:{known[0].precision}"
        write_card(folder, f"MODEL_CARD.{known[0].precision}.md", alternative.path.name, *known,
                   replace(assessed, verdicts=alternative.verdicts))  # fmt: skip
    (folder / BUNDLE).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    (folder / REQUIREMENTS).write_text(read_requirements(runtimes[0], filters=bool(filters)))
    if target.image:
        write_service_files(folder, target.image, gpu=runtimes[0] is TENSORRT)
    write_card(folder, CARD, file, spec, assessment, assessed)
    instructions = contents.instructions
    if isinstance(alternative, Alternative):
        ratio = alternative.max_latency_ratio
        instructions += describe_choice(spec.precision, alternative.path.name, ratio)
    elif alternative:
        instructions += f"\n\nThe folder contains one engine: {alternative}."
    readme = render_readme(target, spec, instructions, len(images), point)
    (folder / README).write_text(readme)
    target.seal(folder)
    plan = render_change_plan(spec, point, assessed.verdicts)
    (folder / CHANGE_PLAN).write_text(plan)
    sbom = render_sbom(
        folder,
        engines,
        requirements=(folder / REQUIREMENTS).read_text(),
        version=version("lesiontk"),
    )
    (folder / SBOM).write_text(sbom)
    write_checksums(folder)
    return BundleFacts(
        target=target.name,
        engine=f"{spec.backend}:{spec.precision}",
        file=file,
        runtimes=tuple(runtime.name for runtime in runtimes),
        golden_images=len(images),
        size_bytes=sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()),
        alternative=other,
        no_alternative="" if isinstance(alternative, Alternative) else alternative,
        details=contents.facts,
    )


def place_engine(
    path: Path, placed: Path, checks: Path | None, assessment: Assessment | None
) -> Assessment | None:
    """Copy an engine file to its place in a bundle, with the outputs for input checks and its
    assessment; return the latter as it is stored."""
    placed.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, placed)
    if checks is not None:
        add_signals(placed)
    return None if assessment is None else stamp(placed, assessment, placed)


def _describe_engine(
    file: str,
    path: Path,
    spec: EngineSpec,
    assessment: Assessment | None,
    verdicts: Sequence[GateVerdict],
) -> dict[str, Any]:
    """Return the keys of ``bundle.json`` that belong to one engine, `file` in the bundle."""
    point = assessment.operating_point if assessment else None
    override = describe_unpassed(verdicts)
    return {
        "engine": {
            "file": file,
            "content_sha256": hash_content(path),
            "backend": spec.backend,
            "precision": spec.precision,
            "input": {"dtype": "uint8", "shape": [1, *spec.input_shape], "colour": "RGB"},
            "output": {"dtype": "float32", "shape": [1, len(spec.labels)]},
        },
        "operating_point": point
        and {"rule": point.rule, "threshold": point.threshold, "positive": list(point.positive)},
        "temperature": assessment and assessment.temperature,
        "gates": [verdict.to_document() for verdict in verdicts],
        "research_override": override,
        "notice": spec.notice
        if override is None
        else f"{spec.notice} Research override: {override}.",
    }


def _add_alternative(
    folder: Path,
    other: Alternative,
    target: BundleTarget,
    assessed: EngineAssessment,
    document: dict[str, Any],
    golden: dict[str, NDArray[Any]],
) -> tuple[EngineSpec, Assessment | None]:
    """Add a further engine to a bundle's folder, `document` and `golden`, and return what it is.

    Its expected outputs are the probabilities of its full-precision parent, and its own verdicts of
    the input checks, because these are of its features. ``changes`` are the keys of `document` that
    have another value for it.
    """
    with open_engine(other.path) as engine:
        spec = engine.spec
        assessment = other.assessment or engine.assessment
    with open_engine(other.parent) as parent:
        expected = parent.predict(golden["images"])
        execution = [part.to_document() for part in parent.describe_execution()]
    if assessed.threshold is not None:
        positive = task_of_engine(spec).positive
        assessment = (assessment or Assessment()).with_threshold(assessed.threshold, positive)
    placed = folder / other.path.name
    assessment = place_engine(other.path, placed, assessed.checks, assessment)
    prefix = f"{spec.precision}_"
    golden[prefix + "probabilities"] = expected
    if assessed.checks is not None:
        golden[prefix + "statuses"] = find_statuses(folder, other.path.name, golden["images"])
    np.savez_compressed(folder / GOLDEN, **golden)  # type: ignore[arg-type]
    changes = {
        **_describe_engine(other.path.name, other.path, spec, assessment, other.verdicts),
        "golden": {
            **document["golden"],
            "answered_by": execution,
            "min_agreement": other.limits.min_agreement,
            "max_mean_drift": other.limits.max_mean_drift,
            "prefix": prefix,
        },
        **target.add_files(folder, placed, spec).bundle,
    }
    document["alternative"] = {"max_latency_ratio": other.max_latency_ratio, "changes": changes}
    return spec, assessment


def write_card(
    folder: Path,
    name: str,
    engine: str,
    spec: EngineSpec,
    assessment: Assessment | None,
    assessed: EngineAssessment,
) -> None:
    """Write the model card of an engine in a bundle's folder."""
    card = render_bundle_card(
        spec,
        assessed.description,
        assessment,
        engine,
        hash_file(folder / engine),
        assessed.verdicts,
        assessed.refusals,
    )
    (folder / name).write_text(card)


def add_signals(engine: Path) -> None:
    """Add to an engine file of a bundle the outputs that input checks need."""
    backend = find_backend(engine)()
    content, _ = backend.split_record(engine.read_bytes())
    engine.write_bytes(backend.add_signal_outputs(content))


def find_statuses(folder: Path, engine: str, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the place in `STATUSES` of each image, by the checks and the engine in the folder."""
    checks = load_checks(folder)
    with open_engine(folder / engine) as opened:
        found = opened.predict_signals(images)
    rows = zip(images, found.probabilities, found.features, found.logits, strict=True)
    verdicts = (check_input(checks, row[0], row[0].shape[0], *row[1:]) for row in rows)
    return np.array([STATUSES.index(verdict["status"]) for verdict in verdicts], np.uint8)


def hash_content(engine: Path) -> str:
    """Return the SHA-256 of an engine file without the evaluation that it carries.

    It is the same for the engine of a workspace and for its copy in a bundle.
    """
    content, _ = find_backend(engine)().split_record(engine.read_bytes())
    return hashlib.sha256(content).hexdigest()


def make_golden_images(preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return uint8 [65, S, S, 3]: 16 pure forms and colours and 49 procedural lesions, prepared.

    None is from a data set, so a bundle can be distributed under the engine's licence alone.
    """
    size = preprocessing.image_size
    lesions = [
        preprocess_image(render_view(diagnosis, 1, view, max(16, size + size // 2)), preprocessing)
        for diagnosis, view in product(load_task("seven_class").labels, range(VIEWS))
    ]
    return np.concatenate([golden_images(size), np.stack(lesions)])


def write_pictures(folder: Path, preprocessing: Preprocessing) -> dict[str, str]:
    """Write images of other shapes than the engine's, and return path -> SHA-256 when prepared."""
    hashes = {}
    (folder / PICTURES).mkdir()
    for number, (name, (height, width)) in enumerate(SHAPES.items()):
        form: NDArray[np.uint8] = golden_images(max(height, width))[6 + 4 * number]
        picture = np.ascontiguousarray(form[:height, :width])
        Image.fromarray(picture).save(folder / PICTURES / name)
        prepared = preprocess_image(picture, preprocessing)
        hashes[f"{PICTURES}/{name}"] = hashlib.sha256(prepared.tobytes()).hexdigest()
    return hashes


def write_checksums(folder: Path) -> None:
    """Write the SHA-256 of every file, as ``sha256sum`` does."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{hash_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / CHECKSUMS).write_text("".join(lines))


def check_destination(out: Path) -> None:
    """Raise `UsageError` unless `out` is new or an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists; expected a new or empty folder.")
