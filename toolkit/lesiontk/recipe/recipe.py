"""The schema of a recipe: every section, key and default.

A recipe is YAML, validated when it is read; an unknown key is an error with the nearest known one.
Any key can be overridden with ``section.key=value``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    WithJsonSchema,
    field_serializer,
    field_validator,
    model_validator,
)

from lesiontk.errors import UsageError, show_value
from lesiontk.recipe.gate_grammar import (
    DEFAULT_GATES,
    parse_gate,
    parse_gates,
    translate_mapping,
)
from lesiontk.recipe.renamed import rename_keys
from lesiontk.stage import ADDED_LATER, StageConfig

THRESHOLD_RULE = r"youden|(?P<kept>sensitivity|specificity):(?P<share>0\.\d*[1-9]\d*|1(?:\.0+)?)"
"""Rules that choose a threshold on validation; a share is above 0 and at most 1."""


class SynthesizeConfig(StageConfig):
    """The procedural data set that is used where no data is given."""

    lesions: int = Field(420, ge=14, description="number of lesions, with one to three images each")
    image_size: int = Field(96, ge=16, le=1024, description="side of the images in pixels")
    seed: int = Field(7, ge=0, lt=2**32, description="seed of the images")


class SplitRule(StageConfig):
    """The assignment of lesions to subsets; only `leaky` breaks the groups.

    If the data has patient ids, the lesions of a patient stay together, too.
    """

    group: Literal["lesion_id"] = Field("lesion_id", description="images that stay in one subset")
    test: float = Field(0.15, gt=0, lt=0.5, description="share of the lesions for the test split")
    validation: float = Field(
        0.15, gt=0, lt=0.5, description="share of the lesions for the validation split"
    )
    seed: int = Field(7, ge=0, lt=2**32, description="seed of the draw")
    near_duplicates: Literal["group", "accept"] = Field(
        "group",
        description="group: copies, and near-duplicates without a lesion id, count as one lesion",
    )
    leaky: bool = Field(
        False, description="assign single images, to measure how much leakage inflates the scores"
    )
    folds: int = Field(
        0,
        ge=0,
        description="folds of a cross-validation, in which every image is tested once, or 0 for "
        "one split; `test` is then one part in `folds`",
        json_schema_extra=ADDED_LATER,
    )
    fold: int = Field(
        0,
        ge=0,
        description="the fold that is the test split, 1 to `folds`; `lesiontk run` makes all",
        json_schema_extra=ADDED_LATER,
    )

    @model_validator(mode="after")
    def _check_folds(self) -> SplitRule:
        if self.folds == 1:
            raise ValueError("folds is 1; expected 2 or more, or 0 for one split")
        if self.fold > self.folds:
            raise ValueError(f"fold is {self.fold}; expected at most folds, {self.folds}")
        if self.folds and self.leaky:
            raise ValueError(
                "folds are dealt by lesion and leaky by image; expected folds 0 with leaky"
            )
        return self


class DataSection(StageConfig):
    """The images, their task and their preprocessing."""

    source: str = Field("auto", description="auto or a registered source")
    path: str | None = Field(None, description="the folder of the images")
    task: str = Field("seven_class", description="seven_class, malignancy, or a path to a YAML")
    image_size: int = Field(
        96, ge=16, le=1024, description="pixels a side of the network's square input"
    )
    crop_mode: Literal["crop", "stretch"] = Field(
        "crop", description="crop: the largest centered square; stretch: the whole image"
    )
    training_aspect: float = Field(
        1.0,
        ge=1,
        le=2,
        description="width to height of the training pictures from which augmentation draws its "
        "crops; 1: the network's centered square",
    )
    training_size: int | None = Field(
        None,
        ge=16,
        le=1024,
        description="height of these pictures; null: image_size. A larger one leaves detail to "
        "crops, and to a teacher of augmented images; the network gets them in image_size",
    )
    enhance: tuple[str, ...] = Field(
        (), description="registered enhancements after crop and resize, in order"
    )
    max_failures: float = Field(0.01, ge=0, le=1, description="share of broken images tolerated")
    split: SplitRule = SplitRule()
    synthetic: SynthesizeConfig = SynthesizeConfig()

    @model_validator(mode="after")
    def _check_training_pictures(self) -> DataSection:
        plain = self.enhance or self.crop_mode != "crop"
        if self.training_aspect > 1 and plain:
            raise ValueError(
                f"training_aspect is {self.training_aspect:g}; expected 1 with enhance or with "
                "crop_mode: stretch"
            )
        if self.training_size is not None:
            if plain:
                raise ValueError(
                    f"training_size is {self.training_size}; expected none with enhance or with "
                    "crop_mode: stretch"
                )
            if self.training_size < self.image_size:
                raise ValueError(
                    f"training_size is {self.training_size}; expected image_size "
                    f"({self.image_size}) or more"
                )
        return self

    @field_validator("enhance", mode="before")
    @classmethod
    def _accept_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class ModelSection(StageConfig):
    """Architecture and initial weights."""

    architecture: str = Field("cnn", description="one of the registered architectures")
    weights: str = Field("none", description="none, imagenet, or a path to a weights file")
    dropout: float = Field(0.3, ge=0, lt=1, description="dropout rate before the last layer")


class ImportedSection(StageConfig):
    """A model trained elsewhere, which replaces training."""

    file: str = Field(description="a .keras or .h5 file, or the folder of a SavedModel")
    pixels: Literal["0..255", "0..1", "-1..1", "caffe", "imagenet"] = Field(
        "0..255", description="the range of the model's input"
    )
    labels: tuple[str, ...] = Field(
        (), description="labels in the order of the model's outputs; default: the task's order"
    )


class TrainSection(StageConfig):
    """The training of the network."""

    epochs: int = Field(30, ge=1, description="maximum number of passes over the training images")
    batch_size: int = Field(32, ge=1, description="images per step, over all replicas")
    micro_batches: int = Field(
        1, ge=1, description="parts of a batch for gradient accumulation, to save memory"
    )
    grow: tuple[int, ...] = Field(
        (),
        description="smaller image sizes for the first epochs (progressive resizing), in "
        "equal parts",
    )
    learning_rate: float = Field(1e-3, gt=0, description="highest rate of AdamW")
    warmup_epochs: float = Field(
        1.0, ge=0, description="epochs over which the rate rises from zero"
    )
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="learning rate after the warm-up"
    )
    weight_decay: float = Field(0.05, ge=0, description="decoupled weight decay of kernels")
    head_epochs: int = Field(
        0,
        ge=0,
        description="first epochs in which only the last layer is trained, on frozen features",
    )
    head_learning_rate: float = Field(
        5e-3, gt=0, description="constant learning rate of these first epochs"
    )
    lowest_rate: float = Field(
        1.0,
        gt=0,
        le=1,
        description="learning rate of the first layer, as a share of the last layer's",
    )
    imbalance: tuple[str, ...] = Field(
        ("sqrt_sampling", "sqrt_class_weight"),
        description="registered choices, as name or name:strength",
    )
    augment: str = Field("dermoscopy", description="one of the registered augmentations")
    stochastic_depth: float = Field(
        0.0,
        ge=0,
        lt=1,
        json_schema_extra=ADDED_LATER,
        description="chance of skipping the last residual block for an image in training; "
        "earlier blocks less, linearly",
    )
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="momentum of the weight average that replaces the weights after each epoch",
    )
    mixed_precision: bool = Field(False, description="compute in bfloat16, keep weights in float32")
    distribute: Literal["none", "mirrored", "multi_worker"] = Field(
        "none",
        description="split each batch over this machine's GPUs or the workers of TF_CONFIG",
    )
    patience: int = Field(
        10, ge=1, description="epochs without a better validation score before training stops"
    )
    seed: int = Field(
        1, ge=0, lt=2**32, description="seed of initial weights, order and augmentation"
    )

    def list_sizes(self, size: int) -> tuple[int, ...]:
        """Return the successive image sizes of training; the last is `size`."""
        return (*self.grow, size)

    def grows_to(self, size: int, smallest: int = 1) -> bool:
        """Return whether the sizes increase from at least `smallest` with an epoch for each."""
        sizes = self.list_sizes(size)
        rising = list(sizes) == sorted(set(sizes))
        return rising and sizes[0] >= smallest and len(sizes) <= self.epochs

    @model_validator(mode="after")
    def _check_parts(self) -> TrainSection:
        if self.batch_size % self.micro_batches:
            raise ValueError(
                f"batch_size is {self.batch_size}; expected a multiple of micro_batches, "
                f"{self.micro_batches}"
            )
        return self

    @field_validator("imbalance", mode="before")
    @classmethod
    def _accept_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class CalibrateConfig(StageConfig):
    """The calibration images, and the observer of int8 ranges."""

    images: int = Field(210, ge=8, description="training images to measure ranges on")
    draw: Literal["balanced", "natural"] = Field(
        "balanced", description="equal numbers of each class, or the natural class frequencies"
    )
    cover: tuple[Literal["site", "brightness"], ...] = Field(
        ("site", "brightness"),
        description="properties over which the images of each class are stratified",
    )
    list: str | None = Field(
        None, description="a packaged list or a CSV file instead of a new sample"
    )
    observer: str = Field("min_max", description="a registered observer")
    seed: int = Field(7, ge=0, lt=2**32, description="seed of the draw")

    @field_validator("cover", mode="before")
    @classmethod
    def _accept_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class QuantizeRule(StageConfig):
    """Options of quantization besides the ranges."""

    correct_bias: bool = Field(
        True, description="correct biases for the mean shift caused by weight rounding"
    )
    reduce_range: bool = Field(
        False,
        description="7-bit weights where a runtime's kernels overflow (ONNX Runtime on x86 CPUs "
        "without VNNI)",
    )


class SensitivityRule(StageConfig):
    """The search for layers that stay in higher precision (precision ``mixed``).

    The budget counts trials, not minutes, so that all machines find the same layers.
    """

    images: int = Field(
        64, ge=16, description="validation images on which each layer is quantized alone"
    )
    trials: int = Field(
        32, ge=1, description="sets of layers that may be tried on all validation images"
    )


class StabilityRule(StageConfig):
    """The dependence of int8 engines on the choice of calibration images."""

    draws: int = Field(
        0, ge=0, description="further calibration samples from which each int8 engine is built"
    )


class VerifyRule(StageConfig):
    """The tolerances of an engine's outputs against its parent's, on validation images.

    ``float`` applies to float32, ``half`` to float16, ``int8`` to every precision of 8-bit weights.
    """

    images: int = Field(128, ge=16, description="validation images to compare outputs on")
    float_images: int = Field(
        32,
        ge=16,
        description="images for float32, for which a difference affects all images or none",
    )
    min_agreement_float: float = Field(
        0.99, ge=0, le=1, description="share of images with the parent's predicted class"
    )
    max_mean_drift_float: float = Field(
        1e-3, gt=0, description="mean absolute difference of probabilities"
    )
    min_agreement_half: float = Field(
        0.98, ge=0, le=1, description="share of images with the parent's predicted class"
    )
    max_mean_drift_half: float = Field(
        5e-3, gt=0, description="mean absolute difference of probabilities"
    )
    min_agreement_int8: float = Field(
        0.90, ge=0, le=1, description="share of images with the parent's predicted class"
    )
    max_mean_drift_int8: float = Field(
        0.05, gt=0, description="mean absolute difference of probabilities"
    )
    min_agreement_qat: float = Field(
        0.99,
        ge=0,
        le=1,
        description="top-1 agreement of int8 with the trained fake-quantized model (qat)",
    )
    signal_images: int = Field(
        8, ge=0, description="images for the signal-to-noise ratio of each layer, or 0"
    )


class EvaluateRule(StageConfig):
    """The evaluation on the test split, and the rule that freezes a threshold on validation."""

    threshold: str = Field(
        "youden", description="youden, sensitivity:S or specificity:S, chosen on validation"
    )
    resamples: int = Field(1000, ge=100, le=10**6, description="bootstrap resamples of lesions")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of the intervals")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of the resampling")

    @field_validator("threshold")
    @classmethod
    def _check_threshold(cls, value: str) -> str:
        if re.fullmatch(THRESHOLD_RULE, value) is None:
            raise ValueError(
                "expected youden, sensitivity:S or specificity:S with 0 < S <= 1, such as "
                "sensitivity:0.90"
            )
        return value


class ExplainRule(StageConfig):
    """Heatmaps of the image regions that determine a prediction."""

    images: int = Field(
        12, ge=0, le=96, description="test images with heatmaps; 0: no picture in the report"
    )
    flips: int = Field(
        24,
        ge=0,
        le=200,
        description="images whose class an engine changes, with pictures, for each engine, or 0",
    )


FEWEST_CORRUPTED = 20


class RobustnessRule(StageConfig):
    """The comparison of int8 engines with their parents on corrupted test images."""

    images: int = Field(
        0, ge=0, description="test images, balanced over the classes, for each int8 engine, or 0"
    )
    corruptions: tuple[str, ...] = Field((), description="names of corruptions; empty: all")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of the choice of images")

    @field_validator("images")
    @classmethod
    def _refuse_few(cls, count: int) -> int:
        if 0 < count < FEWEST_CORRUPTED:
            raise ValueError(
                f"expected 0, or {FEWEST_CORRUPTED} images or more, because fewer show nothing"
            )
        return count


Scenario = Literal["single_stream", "multi_thread", "offline"]


class BenchRule(StageConfig):
    """The measurement of latency."""

    rounds: int = Field(
        20,
        ge=5,
        description="rounds, half of them beyond single_stream; each times every engine, in "
        "random order",
    )
    queries: int = Field(
        32, ge=1, description="queries of an engine in a round, fewer if they take over 0.5 s"
    )
    warmup: int = Field(
        10, ge=1, description="images in a window of the warm-up, which ends when three windows in "
        "a row have equal medians (within 5 %)",
    )  # fmt: skip
    threads: int = Field(1, ge=1, le=1024, description="threads of each engine, single stream")
    scenarios: tuple[Scenario, ...] = Field(
        ("single_stream", "multi_thread", "offline"),
        description="single_stream: one image at a time; multi_thread: the same on all cores; "
        "offline: images per second on all cores",
    )
    per_layer: bool = Field(False, description="also measure the latency of each layer")
    repeats: int = Field(
        2, ge=0, description="how often a noisy measurement is repeated, if within 3 minutes"
    )
    seed: int = Field(
        0, ge=0, lt=2**32, description="seed of the order of the engines in each round"
    )
    repetition: int = Field(0, ge=0, description="a new number repeats the measurement")
    provider: str | None = Field(
        None,
        description="execution provider of ONNX Runtime, such as CUDAExecutionProvider; "
        "default: CPU",
    )

    @field_validator("scenarios")
    @classmethod
    def _include_single_stream(cls, value: tuple[Scenario, ...]) -> tuple[Scenario, ...]:
        if "single_stream" not in value:
            raise ValueError("expected single_stream among them, which gates are decided on")
        return tuple(dict.fromkeys(value))


@dataclass(frozen=True, slots=True)
class Compression:
    """A compression of a recipe, ``technique: {options}`` in its document."""

    technique: str
    options: Mapping[str, Any]


def _read_compression(number: int, entry: Any) -> Compression:
    """Return an entry of `compress`. Raises `UsageError` for one of another form."""
    if isinstance(entry, Compression):
        return entry
    if not isinstance(entry, Mapping):
        raise UsageError(
            f"compress[{number}] is {show_value(entry)}; expected a technique with its options, "
            "such as prune: {keep_macs: 0.5}."
        )
    if len(entry) != 1:
        keys = sorted(map(str, entry))
        raise UsageError(f"compress[{number}] has the keys {keys}; expected one.")
    ((technique, options),) = entry.items()
    if not isinstance(options, Mapping):
        raise UsageError(
            f"compress[{number}].{technique} is {show_value(options)}; expected its options, {{}} "
            "for the defaults."
        )
    return Compression(str(technique), dict(options))


class Recipe(StageConfig):
    """A complete system, from images to report."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_]*$", description="name in lists and results")
    description: str = Field("", description="one line for `lesiontk recipe list`")
    data: DataSection = DataSection()
    model: ModelSection = ModelSection()
    imported: ImportedSection | None = Field(
        None, description="a trained model that replaces model and train"
    )
    train: TrainSection = TrainSection()
    compress: tuple[Annotated[Compression, WithJsonSchema({"type": "object"})], ...] = Field(
        (), description="compression techniques in order, each as `- name: {options}`"
    )
    calibration: CalibrateConfig = CalibrateConfig()
    convert: tuple[str, ...] = Field(
        ("keras:float32", "tflite:float32", "tflite:int8", "onnx:float32", "onnx:int8"),
        min_length=1,
        description="engines to make, as BACKEND:PRECISION",
    )
    quantize: QuantizeRule = QuantizeRule()
    sensitivity: SensitivityRule = SensitivityRule()
    stability: StabilityRule = StabilityRule()
    verify: VerifyRule = VerifyRule()
    evaluate: EvaluateRule = EvaluateRule()
    explain: ExplainRule = ExplainRule()
    robustness: RobustnessRule = RobustnessRule()
    bench: BenchRule = BenchRule()
    gate: tuple[str, ...] = Field(
        (DEFAULT_GATES,),
        description="acceptance gates, such as macro_auc >= parent - 0.01 @ 0.95; default "
        "expands to the gates of the task",
    )
    unresolved: Literal["warn", "fail"] = Field(
        "warn", description="effect of a gate that is not shown, because there are too few lesions"
    )
    bundle: tuple[str, ...] = Field((), description="devices, such as linux-arm64 or android")

    @field_validator("compress", mode="before")
    @classmethod
    def _read_compressions(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return [_read_compression(number, entry) for number, entry in enumerate(value)]

    @field_serializer("compress")
    def _list_compressions(
        self, value: tuple[Compression, ...]
    ) -> tuple[dict[str, dict[str, Any]], ...]:
        return tuple({entry.technique: dict(entry.options)} for entry in value)

    @model_validator(mode="before")
    @classmethod
    def _rename_keys(cls, value: Any) -> Any:
        return rename_keys(value) if isinstance(value, dict) else value

    @field_validator("gate", mode="before")
    @classmethod
    def _refuse_mapping(cls, value: Any) -> Any:
        if isinstance(value, dict):
            raise UsageError(
                "the recipe's gate is a mapping, the form of earlier versions; expected a list "
                f"of lines, such as gate: {translate_mapping(value)}"
            )
        return (value,) if isinstance(value, str) else value

    @field_validator("gate")
    @classmethod
    def _parse_gates(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Return the gates in canonical spelling, so that equal gates give equal keys."""
        parsed = {entry: str(parse_gate(entry)) for entry in value if entry != DEFAULT_GATES}
        parse_gates(list(parsed))
        return tuple(dict.fromkeys(parsed.get(entry, entry) for entry in value))
