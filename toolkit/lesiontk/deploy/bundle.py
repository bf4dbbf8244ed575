"""Writing of the folder that runs an engine on a device, with a self-test."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesiontk.backends import find_backend, open_engine
from lesiontk.backends.stamp import stamp
from lesiontk.data.enhance import ENHANCEMENTS
from lesiontk.data.preprocess import preprocess_image
from lesiontk.data.synthetic.dataset import render_view
from lesiontk.data.tasks import load_task, task_of_engine
from lesiontk.deploy.card import render_bundle_card
from lesiontk.deploy.change_plan import CHANGE_PLAN, render_change_plan
from lesiontk.deploy.sbom import SBOM, render_sbom
from lesiontk.deploy.service_files import write_service_files
from lesiontk.deploy.target import TENSORRT, BundleTarget, Runtime
from lesiontk.document import Record
from lesiontk.errors import UsageError
from lesiontk.evaluate.assessment import Assessment
from lesiontk.evaluate.fit_input_checks import InputChecks
from lesiontk.evaluate.golden_images import golden_images
from lesiontk.evaluate.input_checks import ARRAYS, DOCUMENT, STATUSES, check_input, load_checks
from lesiontk.evaluate.operating_point import OperatingPoint
from lesiontk.evaluate.verdict import GateVerdict, describe_unpassed
from lesiontk.files.hashing import hash_file
from lesiontk.records import EngineSpec, Preprocessing

RUNNER = "lesiontk.deploy.runner"
PREPROCESSING_FILES = ("crop.py", "picture_decoder.py", "image_container.py", "dicom_image.py")
"""The toolkit's own decoding and preprocessing."""
SHORT_NAMES = {
    "lesiontk.data.enhance.": "from enhance.",
    "lesiontk.data.": "from ",
    "lesiontk.evaluate.": "from ",
    "lesiontk.backends.tensorrt.": "from ",
    "lesiontk.deploy.runner.": "from ",
    "lesiontk.deploy.runner import ": "import ",
}
"""How a module is imported in the bundle, after the ``from`` of the toolkit."""
GOLDEN, BUNDLE, README, CARD = "golden.npz", "bundle.json", "README.md", "MODEL_CARD.md"
REQUIREMENTS_PACKAGE = "lesiontk.deploy.requirements"
CHECKSUMS, REQUIREMENTS = "SHA256SUMS", "requirements.txt"
PICTURES = {"wide.png": (97, 160), "tall.png": (150, 113), "square.png": (128, 128)}
"""Name -> (height, width) of the images that test crop and resize, byte for byte."""
VIEWS = 7
"""Procedural images of each diagnosis."""


@dataclass(frozen=True, slots=True)
class EngineAssessment:
    """The facts of an engine beyond its file: its recipe's description and its evaluation.

    Without an `assessment` the one in the file is used. `threshold` replaces the frozen one.
    `verdicts` are those of its acceptance gates; unless all passed, the bundle is for research
    alone, and says so. `checks` is the folder of its input
    checks, and `refusals` are whom they refuse, if known.
    """

    description: str = ""
    assessment: Assessment | None = None
    threshold: float | None = None
    verdicts: tuple[GateVerdict, ...] = ()
    checks: Path | None = None
    refusals: InputChecks | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFacts(Record):
    """The bundle of the engine `file` for a device `target`, of `size_bytes` in all.

    `engine` is the engine's target, `runtimes` those that can run it, the preferred one first.
    `details` are what the device's own tools found.
    """

    SCHEMA: ClassVar[int] = 2

    target: str
    engine: str
    file: str
    runtimes: tuple[str, ...]
    golden_images: int
    size_bytes: int
    details: Mapping[str, Any] = field(default_factory=dict)


def write_bundle(
    folder: Path,
    engine_path: Path,
    target: BundleTarget,
    assessed: EngineAssessment,
    *,
    min_agreement: float,
    max_mean_drift: float,
) -> BundleFacts:
    """Write the bundle of an engine file into an empty folder, and return its facts.

    `min_agreement` and `max_mean_drift` are the tolerances of the device's outputs, the same for
    every device and runtime.

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
    shutil.copyfile(engine_path, folder / engine_path.name)
    if assessed.checks is not None:
        add_checks(assessed.checks, folder, folder / engine_path.name)
    if assessment is not None:
        assessment = stamp(folder / engine_path.name, assessment, folder / engine_path.name)
    golden: dict[str, NDArray[Any]] = {"images": images, "probabilities": outputs}
    if assessed.checks is not None:
        golden["statuses"] = find_statuses(folder, engine_path.name, images)
    np.savez_compressed(folder / GOLDEN, **golden)  # type: ignore[arg-type]
    runtimes = target.runtimes(spec)
    filters = write_runner(folder, runtimes, spec.preprocessing.enhance)
    contents = target.add_files(folder, engine_path, spec)
    point = assessment.operating_point if assessment else None
    override = describe_unpassed(assessed.verdicts)
    document = {
        "format": 1,
        "name": f"{spec.recipe} {spec.backend}:{spec.precision} for {target.name}",
        "target": target.name,
        "lesiontk": version("lesiontk"),
        "recipe": spec.recipe,
        "task": spec.task,
        "engine": {
            "file": engine_path.name,
            "content_sha256": hash_content(engine_path),
            "backend": spec.backend,
            "precision": spec.precision,
            "input": {"dtype": "uint8", "shape": [1, *spec.input_shape], "colour": "RGB"},
            "output": {"dtype": "float32", "shape": [1, len(spec.labels)]},
        },
        "runtimes": {runtime.name: runtime.module for runtime in runtimes},
        "labels": list(spec.labels),
        "operating_point": point
        and {"rule": point.rule, "threshold": point.threshold, "positive": list(point.positive)},
        "temperature": assessment and assessment.temperature,
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
            "min_agreement": min_agreement,
            "max_mean_drift": max_mean_drift,
        },
        "gates": [verdict.to_document() for verdict in assessed.verdicts],
        "split_hash": spec.split_hash,
        "licence": spec.licence,
        "research_override": override,
        "notice": spec.notice
        if override is None
        else f"{spec.notice} Research override: {override}.",
        **contents.bundle,
    }
    (folder / BUNDLE).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    (folder / REQUIREMENTS).write_text(read_requirements(runtimes[0], filters=bool(filters)))
    if target.image:
        write_service_files(folder, target.image, gpu=runtimes[0] is TENSORRT)
    digest = hash_file(folder / engine_path.name)
    card = render_bundle_card(
        spec,
        assessed.description,
        assessment,
        engine_path.name,
        digest,
        assessed.verdicts,
        assessed.refusals,
    )
    (folder / CARD).write_text(card)
    readme = render_readme(target, spec, contents.instructions, len(images), point)
    (folder / README).write_text(readme)
    target.seal(folder)
    plan = render_change_plan(spec, point, assessed.verdicts)
    (folder / CHANGE_PLAN).write_text(plan)
    sbom = render_sbom(
        folder,
        engine_path.name,
        spec,
        assessment,
        requirements=(folder / REQUIREMENTS).read_text(),
        version=version("lesiontk"),
    )
    (folder / SBOM).write_text(sbom)
    write_checksums(folder)
    return BundleFacts(
        target=target.name,
        engine=f"{spec.backend}:{spec.precision}",
        file=engine_path.name,
        runtimes=tuple(runtime.name for runtime in runtimes),
        golden_images=len(images),
        size_bytes=sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()),
        details=contents.facts,
    )


def add_checks(checks: Path, folder: Path, engine: Path) -> None:
    """Add the input checks to a bundle's folder, and to its engine the outputs that they need."""
    for name in (DOCUMENT, ARRAYS):
        shutil.copyfile(checks / name, folder / name)
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


def write_runner(
    folder: Path, runtimes: Iterable[Runtime], enhance: Iterable[str]
) -> list[tuple[str, str]]:
    """Copy the bundle's runner, and return (module, function) of each filter."""
    for name in list_runner_files():
        _copy(RUNNER, name, folder / name)
    for name in PREPROCESSING_FILES:
        _copy("lesiontk.data", name, folder / name)
    _copy("lesiontk.evaluate", "input_checks.py", folder / "input_checks.py")
    for runtime in runtimes:
        _copy(runtime.package, runtime.file, folder / f"{runtime.module}.py")
        for name in runtime.parts:
            _copy(runtime.package, name, folder / name)
    functions = [ENHANCEMENTS.get(name) for name in enhance]
    if functions:
        (folder / "enhance").mkdir()
        (folder / "enhance" / "__init__.py").touch()
        modules = {function.__module__.rpartition(".")[2] for function in functions}
        for module in sorted({*modules, "gradient"}):
            _copy("lesiontk.data.enhance", f"{module}.py", folder / "enhance" / f"{module}.py")
    return [(f.__module__.rpartition(".")[2], f.__name__) for f in functions]


def read_requirements(runtime: Runtime, *, filters: bool) -> str:
    """Return the pinned requirements of a runtime, with hashes; of `filters` OpenCV, too."""
    names = [runtime.name, *(["filters"] if filters else [])]
    texts = (resources.files(REQUIREMENTS_PACKAGE).joinpath(f"{name}.txt") for name in names)
    return "".join(text.read_text(encoding="utf-8") for text in texts)


def list_runner_files() -> list[str]:
    """Return the names of the runner's files, without the runtimes, and of its licence."""
    names = (entry.name for entry in resources.files(RUNNER).iterdir())
    files = (name for name in names if name == "LICENSE" or name.endswith(".py"))
    return sorted(n for n in files if n != "__init__.py" and not n.endswith("_runtime.py"))


def _copy(package: str, name: str, to: Path) -> None:
    text = resources.files(package).joinpath(name).read_text(encoding="utf-8")
    for package, short in SHORT_NAMES.items():
        text = text.replace(f"from {package}", short)
    to.write_text(text, encoding="utf-8")


def write_pictures(folder: Path, preprocessing: Preprocessing) -> dict[str, str]:
    """Write images of other shapes than the engine's, and return path -> SHA-256 when prepared."""
    hashes = {}
    (folder / "golden").mkdir()
    for number, (name, (height, width)) in enumerate(PICTURES.items()):
        form: NDArray[np.uint8] = golden_images(max(height, width))[6 + 4 * number]
        picture = np.ascontiguousarray(form[:height, :width])
        Image.fromarray(picture).save(folder / "golden" / name)
        prepared = preprocess_image(picture, preprocessing)
        hashes[f"golden/{name}"] = hashlib.sha256(prepared.tobytes()).hexdigest()
    return hashes


def render_readme(
    target: BundleTarget,
    spec: EngineSpec,
    instructions: str,
    golden: int,
    point: OperatingPoint | None,
) -> str:
    """Return the text of the bundle's README."""
    decision = "classes" if point is None else f"classes, and the decision at {point.threshold:.4g}"
    threshold_entry = "" if point is None else "threshold, "
    no_threshold = (
        "\nNo threshold was frozen for this engine: `predict` returns probabilities without a "
        "decision.\n`lesiontk bundle --threshold` sets one.\n"
        if point is None
        else ""
    )
    return f"""# {spec.recipe}, {spec.precision}, for {target.name}

{spec.notice} `{CARD}` contains the engine's evaluation and licence.
The folder needs Python {target.python} or later; it does not need lesiontk.

{instructions}

Then:

    python3 run.py self-test              # files, preprocessing, {golden} outputs, latency
    python3 run.py predict picture.jpg    # {decision}
    python3 run.py evaluate FOLDER LABELS.csv
    python3 run.py bench --json           # for `lesiontk bench --import`
    python3 run.py serve                  # http://127.0.0.1:8080/predict, /health, /metrics
    python3 run.py watch FOLDER RESULTS.sqlite
{no_threshold}
All accept `--json`. Exit codes: 0 as expected, 1 outputs differ from those expected, 2 a file is
missing, damaged or rejected, 3 a missing requirement.

| file | what |
| --- | --- |
| `{BUNDLE}` | labels, crop and resize, input, output, {threshold_entry}tolerances |
| `run.py`, the other `*.py` | the runner, with the same preprocessing and decision as lesiontk; \
`LICENSE` is theirs |
| `{GOLDEN}`, `golden/` | images with their expected outputs and prepared bytes |
| `systemd/`, `Dockerfile` | services, if the device has them |
| `{CHECKSUMS}` | `sha256sum -c {CHECKSUMS}` |

The golden images are procedural: none is from the training data.
"""


def write_checksums(folder: Path) -> None:
    """Write the SHA-256 of every file, as ``sha256sum`` does."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{hash_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / CHECKSUMS).write_text("".join(lines))


def check_destination(out: Path) -> None:
    """Raise `UsageError` unless `out` is new or an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists; expected a new or empty folder.")
