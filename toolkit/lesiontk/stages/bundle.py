"""Stage: a folder that runs an engine on a device, with a self-test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from lesiontk.backends import find_backend, parse_target
from lesiontk.backends.engine_facts import EngineFacts
from lesiontk.backends.reference_outputs import engine_file
from lesiontk.bench.judging import OVERRIDE, require_gates
from lesiontk.deploy import find_bundle_target
from lesiontk.deploy.bundle import (
    Alternative,
    BundleFacts,
    EngineAssessment,
    Limits,
    check_destination,
    hash_content,
    write_bundle,
)
from lesiontk.deploy.target import BundleTarget
from lesiontk.errors import DataError, GateFailedError
from lesiontk.evaluate.assessment import Assessment
from lesiontk.evaluate.input_checks import DOCUMENT, FOLDER
from lesiontk.evaluate.verdict import GateVerdict, Unresolved, describe_unpassed
from lesiontk.files.strict_json import read_json
from lesiontk.records import Artefact
from lesiontk.stage import Context, Stage, StageConfig, StageInfo, StageOutput
from lesiontk.stages.bench import read_benchmark
from lesiontk.stages.engine_tools import tools_of_runtime
from lesiontk.stages.evaluate import read_assessment
from lesiontk.stages.input_checks import read_input_checks
from lesiontk.system.disk import explain_disk_error


class BundleConfig(StageConfig):
    """The target, and the tolerances of the device's outputs.

    An engine that did not pass its gates is rejected, unless there is a `research_override`. The
    tolerances are the same for every device. `threshold` replaces the frozen one. An alternative in
    float16 is held to the full-precision outputs, closer than int8 to its own; int8 is kept only if
    its latency is at most `max_latency_ratio` of the alternative's. Without one, `no_alternative`
    says why.
    """

    target: str
    threshold: float | None = Field(None, ge=0, le=1)
    min_agreement: float = Field(0.98, ge=0, le=1)
    max_mean_drift: float = Field(4e-3, gt=0)
    alternative_max_mean_drift: float = Field(2e-3, gt=0)
    max_latency_ratio: float = Field(0.9, gt=0, le=1)
    no_alternative: str = ""
    research_override: bool = False


class BundleStage(Stage):
    """Produces a folder: engine, description, runner, golden outputs, checksums, instructions.

    `runtime` is a folder with the runtime of a target whose bundles contain one. Its content is
    pinned by hashes in the toolkit, so it is no part of the configuration.
    """

    info: ClassVar[StageInfo] = StageInfo(
        name="bundle",
        version=11,
        accepts={
            "engine": "engine",
            "evaluation": "evaluation",
            "benchmark": "benchmark",
            "input_checks": "input_checks",
            "alternative": "engine",
            "alternative_parent": "engine",
            "alternative_evaluation": "evaluation",
            "alternative_benchmark": "benchmark",
        },
        produces="bundle",
        config=BundleConfig,
        schema_version=BundleFacts.SCHEMA,
        tools=("numpy", "Pillow"),
    )

    def __init__(self, runtime: Path | None = None) -> None:
        self._runtime = runtime

    def check(self, config: BundleConfig) -> None:
        """Raise `UsageError` for an unknown target."""
        find_bundle_target(config.target)

    def list_tools(self, config: BundleConfig, parents: Mapping[str, Artefact]) -> tuple[str, ...]:
        return (*self.info.tools, *tools_of_runtime([parents["engine"]]))

    def run(
        self, parents: Mapping[str, Artefact], config: BundleConfig, context: Context
    ) -> StageOutput:
        engine, evaluation = parents["engine"], parents.get("evaluation")
        checks = parents.get("input_checks")
        verdicts = read_verdicts_on(parents["benchmark"], engine) if "benchmark" in parents else ()
        if not config.research_override:
            require_passed(verdicts, engine.name)
        assessed = EngineAssessment(
            description=str(engine.manifest.recipe.get("description", "")),
            assessment=read_assessment(evaluation) if evaluation else None,
            threshold=config.threshold,
            verdicts=verdicts,
            checks=checks.path if checks else None,
            refusals=read_input_checks(checks) if checks else None,
        )
        facts = write_bundle(
            context.directory,
            engine_file(engine),
            open_target(config.target, self._runtime),
            assessed,
            Limits(config.min_agreement, config.max_mean_drift),
            make_alternative(parents, config),
        )
        return StageOutput(facts.to_document())


def make_alternative(parents: Mapping[str, Artefact], config: BundleConfig) -> Alternative | str:
    """Return the other engine of which the device keeps one, or why there is none.

    One that did not pass its own gates is left out: the device must not keep it.
    """
    engine = parents.get("alternative")
    if engine is None:
        return config.no_alternative
    verdicts = (
        read_verdicts_on(parents["alternative_benchmark"], engine)
        if "alternative_benchmark" in parents
        else ()
    )
    unpassed = describe_unpassed(verdicts)
    if unpassed is not None and not config.research_override:
        return f"the other was left out, {unpassed}"
    return Alternative(
        engine_file(engine),
        engine_file(parents["alternative_parent"]),
        alternative_limits(config),
        config.max_latency_ratio,
        read_assessment(parents["alternative_evaluation"]),
        verdicts,
    )


def open_target(name: str, runtime: Path | None) -> BundleTarget:
    """Return a bundle target that takes its runtime from a folder, if any.

    Raises `UsageError` for an unknown target, or one whose bundles contain no runtime.
    """
    target = find_bundle_target(name)
    if runtime is not None:
        target.use_runtime(runtime)
    return target


def alternative_limits(config: BundleConfig) -> Limits:
    """Return the tolerances of the alternative's outputs against full precision."""
    return Limits(config.min_agreement, config.alternative_max_mean_drift)


def require_passed(verdicts: Sequence[GateVerdict], name: str) -> None:
    """Raise `GateFailedError` unless the engine called `name` passed gates, all that it has."""
    require_gates(verdicts, Unresolved.FAIL, OVERRIDE)
    if not verdicts:
        raise GateFailedError(f"{name} was not tested by gates. State some (`gate`); {OVERRIDE}.")


def read_verdicts_on(benchmark: Artefact, engine: Artefact) -> tuple[GateVerdict, ...]:
    """Return a benchmark's verdicts on an engine. Raises `DataError` if it has none."""
    target = engine.read_facts(EngineFacts).target
    judged = benchmark.manifest.parents.get(f"engine:{target}")
    if judged is None or judged.content != engine.content:
        raise DataError(
            f"{benchmark.name} has no verdicts on {engine.name}; expected a benchmark of this "
            "engine."
        )
    return tuple(
        verdict for verdict in read_benchmark(benchmark).verdicts if verdict.engine == target
    )


def write_bundle_of_file(
    out: Path,
    engine: Path,
    target: BundleTarget,
    *,
    assessment: Assessment | None = None,
    threshold: float | None = None,
) -> BundleFacts:
    """Write the bundle of an engine file without known gates, and return the facts.

    Its threshold, temperature and results are those of the `assessment`, or of the file. `out` is
    created when the bundle is complete, and not at all if writing fails.
    """
    check_destination(out)
    config = BundleConfig(target=target.name)
    assessed = EngineAssessment(
        assessment=assessment, threshold=threshold, checks=find_checks_beside(engine)
    )
    limits = Limits(config.min_agreement, config.max_mean_drift)
    with atomic_folder(out) as folder:
        alternative = find_alternative_beside(engine, target, config)
        return write_bundle(folder, engine, target, assessed, limits, alternative)


def find_alternative_beside(
    engine: Path, target: BundleTarget, config: BundleConfig
) -> Alternative | str:
    """Return the other engine beside a file, of which the device keeps one, or why there is none.

    It is there with its full-precision parent under the names that `lesiontk convert` gives them,
    of the same recipe and split.
    """
    if not target.alternatives:
        return ""
    backend = find_backend(engine)()
    spec = backend.read_spec(engine)
    other = target.alternatives.get(f"{spec.backend}:{spec.precision}")
    if other is None:
        return ""
    parent = backend.info.precisions[parse_target(other)[1]].derived_from
    path, full = (
        engine.with_name(f"{name.replace(':', '_')}{engine.suffix}") for name in (other, parent)
    )
    if not (path.is_file() and full.is_file()):
        return (
            f"{path.name} and its parent {full.name} are not both beside {engine.name}, so the "
            f"device cannot measure whether {other} is as fast"
        )
    for file in (path, full):
        found = find_backend(file)().read_spec(file)
        if replace(found, backend=spec.backend, precision=spec.precision) != spec:
            raise DataError(
                f"{file.name} beside {engine.name} is of another model ({found.recipe}, split "
                f"{found.split_hash[:12]}); expected {spec.recipe}, {spec.split_hash[:12]}."
            )
    return Alternative(path, full, alternative_limits(config), config.max_latency_ratio)


def find_checks_beside(engine: Path) -> Path | None:
    """Return the folder ``input_checks`` beside an engine file, if it was made for that engine.

    Raises `DataError` if its document cannot be read.
    """
    folder = engine.parent / FOLDER
    if not (folder / DOCUMENT).is_file():
        return None
    made_for = read_json(folder / DOCUMENT, DOCUMENT).get("engine_sha256")
    return folder if made_for == hash_content(engine) else None


def copy_bundle(artefact: Artefact, out: Path) -> None:
    """Copy a bundle's own files to `out`, without the workspace's manifest."""
    check_destination(out)
    with atomic_folder(out) as folder:
        for name in artefact.manifest.files:
            to = folder / name
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(artefact.file(name), to)


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `out`, and rename it to `out` on success.

    Raises `MissingRequirementError` if the disk of `out` is full.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as temporary:
            folder = Path(temporary) / out.name
            folder.mkdir()
            yield folder
            folder.replace(out)  # replaces an empty folder of that name
    except OSError as error:
        lacks = explain_disk_error(error, out.parent)
        if lacks is None:
            raise
        raise lacks from error
