"""A model card (Mitchell et al., arXiv:1810.03993) in Markdown, from a run's artefacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steps import describe_steps

from lesiontk.backends.engine_facts import EngineFacts
from lesiontk.backends.onnx.int8_kernels import EXACT
from lesiontk.bench.benchmark import Benchmark, list_emulated
from lesiontk.bench.findings import critical_recalls, list_uninformative
from lesiontk.calibration.drawn_list import DrawnList
from lesiontk.data.dealt_split import DealtSplit
from lesiontk.document import Record
from lesiontk.evaluate.evaluation import ExternalEvaluation
from lesiontk.evaluate.findings import CriticalRecall
from lesiontk.records import ModelFacts, Preprocessing
from lesiontk.report.formatting import format_level
from lesiontk.report.result_table import (
    gates_from_benchmark,
    operating_points_from_benchmark,
    recalls_from_benchmark,
    table_from_benchmark,
    table_from_external,
)
from lesiontk.report.wording import (
    describe_best,
    describe_found,
    describe_initial_weights,
    describe_recall_constraint,
)

HALF, INT8 = "keras_half.keras", "tflite_int8.tflite"
NETWORKS = ("keras_float32.keras", HALF)
"""The files of a network in float32, of which at most one is published."""
"""The float network with its weights in half precision."""


@dataclass(frozen=True, slots=True)
class ExternalCheck(Record):
    """Evaluations on images from elsewhere, called `name`, by the target of the engine."""

    name: str
    engines: Mapping[str, ExternalEvaluation]


def render_model_card(
    *,
    recipe: Mapping[str, Any],
    model: ModelFacts,
    training_seconds: float,
    split: DealtSplit,
    calibration: DrawnList | None,
    benchmark: Benchmark,
    engines: Sequence[EngineFacts],
    sizes: Mapping[str, int],
    command: str,
    left_out: Sequence[str] = (),
    half: bool = False,
    external: ExternalCheck | None = None,
) -> str:
    """Return the card of a run; `recipe` is the document of its recipe.

    `engines` are those whose files are published with the card, `sizes` the number of images by
    their width and height in pixels, as ``320x240``. `left_out` are the targets whose files are too
    large to be published, `half` says that `HALF` is, `external` evaluations on images from
    elsewhere.
    """
    labels = model.labels
    counts = {subset: sum(values.values()) for subset, values in split.images.items()}
    lesions = {subset: sum(values.values()) for subset, values in split.lesions.items()}
    emulated = list_emulated(benchmark.rows)
    sections = [
        f"# {recipe['name']}\n\n{_describe_origin(recipe, model)}",
        "**Research software, not a medical device.** It must not be used to diagnose or to decide "
        "on treatment.",
        "## Intended use\n\nStudying how a network of this kind behaves on edge hardware, and how "
        "much quantization costs. Input: one dermoscopic picture with the lesion in its centred "
        f"square; output: probabilities of {', '.join(labels)}. Out of scope: clinical photographs "
        "without a dermatoscope, other kinds of lesions, skin types that are missing from the data"
        f"{_describe_people(recipe['data'].get('source'))}.",
        f"## Files\n\n{_list_engines(engines, emulated)}{_describe_left_out(left_out, half)}\n\n"
        "Every file contains its labels, preprocessing "
        f"({_describe_preprocessing(model.preprocessing)}), input size and "
        "the hash of the split; `lesiontk predict FILE picture.jpg` needs no other "
        "file. Input uint8 "
        f"RGB [1, {benchmark.image_size}, {benchmark.image_size}, 3], output float32 "
        f"[1, {len(labels)}].",
        f"## Data and licence\n\n{split.citation}\n\nLicence: {split.licence}. The weights "
        "are derived from these images: use them under the same terms. No image is part of the "
        f"files. The images were {_describe_sizes(sizes)} pixels; the figures do not apply to "
        "other resolutions.\n\n"
        f"Split by lesion, stratified by class, hash `{split.split_hash}`: "
        + ", ".join(f"{counts[s]} images of {lesions[s]} lesions for {s}" for s in counts)
        + ".",
        f"## Training\n\n{model.architecture}, {model.parameters:,} parameters, "
        f"{_describe_size(recipe, model)}; {_describe_course(model)} "
        f"({model.validation.balanced_accuracy:.3f}, n = {model.validation.n}). It "
        f"took {training_seconds / 60:.0f} minutes. {_describe_steps(model)}"
        f"Command:\n\n```\n{command}\n```",
        _describe_calibration(calibration, engines),
        render_results(benchmark),
        _describe_external(external),
        f"## Limits\n\n{_describe_found(benchmark)}The network was evaluated on one split of one "
        f"collection{_describe_elsewhere(external)}. "
        f"{_describe_prior(recipe['train']['imbalance'])}{_describe_unknown(model)}",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _describe_elsewhere(external: ExternalCheck | None) -> str:
    return f" and on {external.name}" if external else ""


def _describe_people(source: str | None) -> str:
    if source != "ham10000":
        return ""
    return " (HAM10000 comes from Austria and Australia and contains few dark skin types)"


def render_results(benchmark: Benchmark) -> str:
    """Return the sections on the figures of a benchmark and on its acceptance gates."""
    machine, rows = benchmark.machine, benchmark.rows
    sections = [
        f"## Results on the test split\n\nn = {rows[0].n} images; in brackets "
        f"{format_level(benchmark.confidence)} intervals by lesion. Latency: one image at a time, "
        f"{benchmark.threads} thread, n = {rows[0].latency.n} per engine, "
        f"interleaved, on {machine.processor} ({', '.join(machine.int8_features)}); compare rows "
        "with each other, not with other machines.\n\n" + table_from_benchmark(benchmark),
        "Recall of each class (share of its images that are found):\n\n"
        + recalls_from_benchmark(benchmark).rstrip(),
        "### At the frozen threshold\n\n" + operating_points_from_benchmark(benchmark).rstrip(),
        "### Acceptance gates\n\n" + gates_from_benchmark(benchmark).rstrip(),
    ]
    return "\n\n".join(sections)


def _describe_found(benchmark: Benchmark) -> str:
    """Return how many images of the critical class each engine finds, and cautions."""
    useless = [
        f"{', '.join(targets)}: {clause}. "
        for clause, targets in list_uninformative(benchmark).items()
    ]
    grouped: dict[CriticalRecall, list[str]] = {}
    for target, recall in critical_recalls(benchmark).items():
        grouped.setdefault(recall, []).append(target)
    found = [
        "; ".join([f"{', '.join(t)}: {describe_found(recall)}", *recall.list_cautions()]) + ". "
        for recall, t in grouped.items()
    ]
    return "".join([*useless, *found])


def _describe_course(model: ModelFacts) -> str:
    if not model.epochs:
        kept = describe_recall_constraint(model)
        left = f", {kept}" if kept else ""
        return f"not trained by its last step{left}; balanced accuracy on validation"
    return f"{model.epochs} epochs, {describe_best(model)} was epoch {model.best_epoch}"


def _describe_steps(model: ModelFacts) -> str:
    described = [f"{step.step} ({step.what})" for step in describe_steps(model)]
    if not described:
        return ""
    return f"It was made in {len(described)} steps: {', then '.join(described)}. "


def _describe_preprocessing(preprocessing: Preprocessing) -> str:
    steps = [preprocessing.crop_mode, "resize", *preprocessing.enhance]
    return ", ".join(step.replace("_", " ") for step in steps)


def _describe_calibration(calibration: DrawnList | None, engines: Sequence[EngineFacts]) -> str:
    if calibration is None:
        return ""
    compared = calibration.disjoint_from
    symmetric = [engine.file for engine in engines if engine.backend == "tensorrt"]
    return (
        f"## Quantization\n\nint8 after training: weights symmetric per channel, activations "
        f"asymmetric per tensor{''.join(f' (symmetric in `{file}`)' for file in symmetric)}, "
        f"ranges ({calibration.observer}) from "
        f"{calibration.images} training images, drawn {calibration.draw} with seed "
        f"{calibration.seed}. None shares its id, lesion or pixels with an image of "
        + ", ".join(f"{subset} ({n} compared)" for subset, n in compared.items())
        + ". Softmax stays in float."
        + _describe_overflow(engines)
    )


def _describe_overflow(engines: Sequence[EngineFacts]) -> str:
    """Return a note for other programs on engines whose products may overflow."""
    files = [
        f"`{engine.file}`"
        for engine in engines
        if engine.backend == "onnx" and engine.quantization.weight_bits == 8
    ]
    return (
        f" A program of your own must set ONNX Runtime's `{EXACT}` to 1 for {' and '.join(files)}, "
        "as lesiontk does: otherwise products overflow on x86 CPUs without VNNI, and outputs "
        "change."
        if files
        else ""
    )


def _describe_external(external: ExternalCheck | None) -> str:
    if external is None:
        return ""
    return f"## External check\n\n{table_from_external(external.name, external.engines)}".rstrip()


def _describe_left_out(targets: Sequence[str], half: bool) -> str:
    if not targets:
        return ""
    rounded = (
        f" `{HALF}` is the network with its weights rounded to half precision, to train or "
        "compress it further; the figures are of the exact weights."
    )
    return (
        f"\n\nToo large to be published: {', '.join(targets)}. The command under Training makes "
        f"them, in the workspace; `lesiontk prune` makes smaller ones.{rounded if half else ''}"
    )


def _describe_origin(recipe: Mapping[str, Any], model: ModelFacts) -> str:
    weights = recipe["model"]["weights"]
    origin = (
        "random weights"
        if weights == "none"
        else f"pretrained weights ({describe_initial_weights(model, weights)})"
    )
    phases = ", first its head, then all layers" if recipe["train"].get("head_epochs") else ""
    return (
        f"{model.architecture} on {_describe_size(recipe, model)}, for "
        f"{len(model.labels)} classes, trained from {origin}{phases}."
    )


def _describe_size(recipe: Mapping[str, Any], model: ModelFacts) -> str:
    trained, now = recipe["data"]["image_size"], model.preprocessing.image_size
    return f"{now} px" if now == trained else f"{now} px, before compression {trained} px"


def _describe_prior(imbalance: Sequence[str]) -> str:
    treatments = [name for name in imbalance if name != "none"]
    if not treatments:
        return (
            "It was trained with the class frequencies of the collection; its probabilities are "
            "not the risk of a patient."
        )
    return (
        f"Rare classes had more weight in training ({', '.join(treatments)}); its "
        "probabilities are not the risk of a patient."
    )


def _describe_unknown(model: ModelFacts) -> str:
    if not model.may_have_seen_test:
        return ""
    return (
        " It, or its teacher, was trained elsewhere, on unknown images, possibly including the "
        "test images: every figure here may be too optimistic."
    )


def _describe_sizes(sizes: Mapping[str, int]) -> str:
    most = sorted(sizes, key=lambda size: -sizes[size])
    return most[0] if len(most) == 1 else f"of {len(most)} sizes, most {most[0]},"


def _list_engines(engines: Sequence[EngineFacts], emulated: Mapping[str, str]) -> str:
    described = (_describe_agreement(engine, emulated) for engine in engines)
    return "\n".join(f"- `{engine.file}`{t}" for engine, t in zip(engines, described, strict=True))


def _describe_agreement(engine: EngineFacts, emulated: Mapping[str, str]) -> str:
    """Return the agreement of an engine with its parent; a Keras file is the network."""
    if engine.target == "keras:float32":
        return ": the trained network"
    agreement = engine.verification.agreement
    if agreement is None:
        return ""
    emulator = emulated.get(engine.target)
    how = f", emulated by {emulator}" if emulator else ""
    return (
        f": agrees with its parent on {agreement.top1_agreement:.1%} of {agreement.n} images{how}"
    )
