"""Stage: the results of a run as one self-contained HTML file."""

from __future__ import annotations

import base64
import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from lesiontk.backends.engine_facts import EngineFacts
from lesiontk.backends.quantized_tensors import FILE as TENSORS
from lesiontk.backends.quantized_tensors import TensorRow, read_tensor_rows
from lesiontk.calibration.drawn_list import DrawnList
from lesiontk.calibration.stability import Stability
from lesiontk.compress.layers import LayerWidths
from lesiontk.compress.sensitivity import Sensitivity
from lesiontk.data.dealt_split import DealtSplit
from lesiontk.data.image_table import SplitImage
from lesiontk.data.images import TABLE
from lesiontk.data.inspection import Inspection
from lesiontk.document import Record, read_table
from lesiontk.explain.explanation import DOCUMENT as EXPLANATION
from lesiontk.explain.explanation import Explanation
from lesiontk.explain.flips import TABLE as FLIPS_TABLE
from lesiontk.records import Artefact, ModelFacts
from lesiontk.report.exports import write_exports
from lesiontk.report.flip_cards import name_flips_table
from lesiontk.report.render import ArtefactOrigin, ReportData, write_report
from lesiontk.report.tables import JudgedImage
from lesiontk.stage import (
    Context,
    EngineName,
    Stage,
    StageConfig,
    StageInfo,
    StageOutput,
    StepId,
    collect_engines,
    collect_roles,
    kind_of_role,
)
from lesiontk.stages.bench import read_benchmark, read_latencies
from lesiontk.stages.evaluate import read_evaluation, read_predictions
from lesiontk.stages.flips import read_flips
from lesiontk.stages.input_checks import read_input_checks
from lesiontk.stages.prune import WIDTHS
from lesiontk.stages.robustness import read_robustness
from lesiontk.stages.sensitivity import rank_layers

FILE = "report.html"
R = TypeVar("R", bound=Record)
CURVES = "curves.csv"

ORDER = (
    "inspection",
    "split",
    "images",
    "ancestor",
    "model",
    "calibration",
    "sensitivity",
    "engine",
    "evaluation",
    "stability",
    "input_checks",
    "robustness",
    "explanation",
    "flips",
    "benchmark",
)
AFTER_TRAINING = (
    "calibration",
    "convert",
    "quantize",
    "sensitivity",
    "stability",
    "verify",
    "evaluate",
    "explain",
    "robustness",
    "bench",
    "gate",
    "unresolved",
)


class ReportConfig(StageConfig):
    """The heading of the report."""

    name: str
    description: str = ""


class ReportStage(Stage):
    """Produces ``report.html``, the same as JSON, CSV and Markdown, and a table of flips."""

    info: ClassVar[StageInfo] = StageInfo(
        name="report",
        version=15,
        accepts={
            "benchmark": "benchmark",
            "model": "model",
            "ancestor": "model",
            "inspection": "inspection",
            "split": "split",
            "images": "images",
            "calibration": "calibration",
            "sensitivity": "sensitivity",
            "stability": "stability",
            "input_checks": "input_checks",
            "robustness": "robustness",
            "engine": "engine",
            "evaluation": "evaluation",
            "explanation": "explanation",
            "flips": "flips",
        },
        produces="report",
        config=ReportConfig,
        tools=("Jinja2", "matplotlib"),
    )

    def run(
        self, parents: Mapping[str, Artefact], config: ReportConfig, context: Context
    ) -> StageOutput:
        model, benchmark = parents["model"], parents["benchmark"]
        ancestors = _list_ancestors(parents)
        engines = collect_engines(parents, "engine")
        evaluations = collect_roles(parents, "evaluation")
        sensitivities = collect_roles(parents, "sensitivity")

        def read(role: str, record: type[R]) -> R | None:
            return parents[role].read_facts(record) if role in parents else None

        flips = collect_roles(parents, "flips")
        explanation, heatmaps = _read_heatmaps(parents.get("explanation"))
        data = ReportData(
            name=config.name,
            description=config.description,
            benchmark=read_benchmark(benchmark),
            latencies=read_latencies(benchmark),
            metrics={target: read_evaluation(artefact) for target, artefact in evaluations.items()},
            engines={target: a.read_facts(EngineFacts) for target, a in engines.items()},
            curves=_read_curves(model),
            model=model.read_facts(ModelFacts),
            ancestors=[ancestor.read_facts(ModelFacts) for ancestor in ancestors],
            training_seconds=model.manifest.seconds,
            recipe=_recipe_of_run(model, benchmark),
            split=read("split", DealtSplit),
            inspection=read("inspection", Inspection),
            calibration=read("calibration", DrawnList),
            lineage={role: _origin(parents[role]) for role in sorted(parents, key=_rank)},
            images=_read_images(evaluations, parents.get("images")),
            confidences={
                target: [float(p) for p in read_predictions(artefact)[1].max(axis=1)]
                for target, artefact in evaluations.items()
            },
            explanation=explanation,
            heatmaps=heatmaps,
            flips={target: read_flips(artefact) for target, artefact in flips.items()},
            flip_pictures={target: _read_pictures(artefact) for target, artefact in flips.items()},
            versions=_collect_versions(parents),
            tensors=_read_tensors(engines),
            stabilities={
                target: artefact.read_facts(Stability)
                for target, artefact in collect_roles(parents, "stability").items()
            },
            input_checks={
                target: read_input_checks(artefact)
                for target, artefact in collect_roles(parents, "input_checks").items()
            },
            robustness={
                target: read_robustness(artefact)
                for target, artefact in collect_roles(parents, "robustness").items()
            },
            widths=_read_widths([*ancestors, model]),
            sensitivities={name: a.read_facts(Sensitivity) for name, a in sensitivities.items()},
            sensitive_layers={name: rank_layers(a) for name, a in sensitivities.items()},
        )
        write_report(data, context.directory / FILE)
        for target, artefact in flips.items():
            name = name_flips_table(target)
            (context.directory / name).write_bytes(artefact.file(FLIPS_TABLE).read_bytes())
        exports = write_exports(data, context.directory)
        return StageOutput({"file": FILE}, auxiliary=(FILE, *exports))


def _list_ancestors(parents: Mapping[str, Artefact]) -> list[Artefact]:
    """Return the models in the roles ``ancestor:NUMBER@STAGE``, the trained one first."""
    roles = [r for r in parents if isinstance(r, StepId) and r.kind == "ancestor"]
    return [parents[role] for role in sorted(roles, key=lambda role: int(role.target))]


def _read_curves(model: Artefact) -> list[dict[str, float]]:
    """Return a row per epoch; empty for a model that was derived without training."""
    if CURVES not in model.manifest.files:
        return []
    with model.file(CURVES).open(newline="") as stream:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(stream)]


def _read_widths(line: Sequence[Artefact]) -> list[LayerWidths]:
    """Return the widths after the last pruning of these models; empty without pruning."""
    pruned = [model for model in line if WIDTHS in model.manifest.files]
    if not pruned:
        return []
    return read_table(pruned[-1].file(WIDTHS), LayerWidths)


def _recipe_of_run(model: Artefact, benchmark: Artefact) -> dict[str, Any]:
    """Return the model's recipe, with the sections after training from the benchmark's recipe.

    The model may have been trained for another recipe, or with other overrides.
    """
    later = benchmark.manifest.recipe
    return {
        **model.manifest.recipe,
        **{section: later[section] for section in AFTER_TRAINING if section in later},
    }


def _read_images(
    evaluations: Mapping[str, Artefact], images: Artefact | None
) -> tuple[JudgedImage, ...]:
    """Return the test images in the order of the predictions, the same for all engines."""
    if not evaluations:
        return ()
    _, _, groups, image_ids, _ = read_predictions(next(iter(evaluations.values())))
    lesions: dict[str, str | None] = {}
    if images is not None:
        rows = read_table(images.file(TABLE), SplitImage)
        lesions = {row.image_id: row.lesion_id for row in rows}
    return tuple(
        JudgedImage(image_id, group, lesions.get(image_id))
        for image_id, group in zip(image_ids, groups, strict=True)
    )


def _read_heatmaps(artefact: Artefact | None) -> tuple[Explanation | None, dict[str, str]]:
    """Return the explanation, and each of its images as a ``data:`` URL by file."""
    if artefact is None:
        return None, {}
    explanation = artefact.read(EXPLANATION, Explanation)
    files = [
        file
        for image in explanation.images
        for file in (image.original, image.predicted.file, image.rival.file)
    ]
    return explanation, {file: encode_url(artefact.file(file).read_bytes()) for file in files}


def _read_pictures(artefact: Artefact) -> dict[str, str]:
    """Return the pictures of flips as ``data:`` URLs by file."""
    return {
        file: encode_url(artefact.file(file).read_bytes())
        for file in artefact.manifest.files
        if file.endswith(".jpg")
    }


def encode_url(content: bytes) -> str:
    """Return a JPEG as a ``data:`` URL."""
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode('ascii')}"


def _read_tensors(engines: Mapping[EngineName, Artefact]) -> dict[str, tuple[TensorRow, ...]]:
    """Return target -> the quantized activations of engines with any."""
    return {
        target: read_tensor_rows(artefact.file(TENSORS))
        for target, artefact in engines.items()
        if TENSORS in artefact.manifest.files
    }


def _rank(role: str) -> tuple[int, str]:
    return ORDER.index(kind_of_role(role)), role


def _origin(artefact: Artefact) -> ArtefactOrigin:
    made_from = {role: entry.name for role, entry in artefact.manifest.parents.items()}
    return ArtefactOrigin(artefact.name, artefact.content, made_from)


def _collect_versions(parents: Mapping[str, Artefact]) -> dict[str, tuple[str, ...]]:
    """Return tool -> its versions in the run's artefacts."""
    versions: dict[str, set[str]] = defaultdict(set)
    for artefact in parents.values():
        manifest = artefact.manifest
        for name, version in {**manifest.environment, **manifest.tools}.items():
            if name in manifest.tools or name in ("lesiontk", "python"):
                versions[name.lower()].add(str(version))
    return {name: tuple(sorted(found)) for name, found in sorted(versions.items())}
