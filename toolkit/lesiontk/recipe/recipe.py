"""What a recipe may say: every section, every key, every default.

A recipe is YAML, validated when it is read; an unknown key is an error that names the nearest
known one. Any key can be overridden with ``section.key=value``.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from lesiontk.errors import UsageError
from lesiontk.recipe.gate_grammar import (
    DEFAULT_GATES,
    parse_gate,
    parse_gates,
    translate_mapping,
)
from lesiontk.recipe.renamed import rename_keys
from lesiontk.stage import StageConfig

THRESHOLD_RULE = r"youden|sensitivity:(?P<sensitivity>0\.\d*[1-9]\d*|1(?:\.0+)?)"
"""How a threshold may be chosen on validation; a sensitivity lies above 0 and at most at 1."""


class SynthesizeConfig(StageConfig):
    """The procedural data set that stands in where no data is given."""

    lesions: int = Field(420, ge=14)
    image_size: int = Field(96, ge=16, le=1024)
    seed: int = 7


class SplitRule(StageConfig):
    """How lesions are dealt to the subsets; `group` exists to be read: only `leaky` breaks it.

    Where the data has patient ids, a patient's lesions stay together, too.
    """

    group: Literal["lesion_id"] = "lesion_id"
    test: float = Field(0.15, gt=0, lt=0.5)
    validation: float = Field(0.15, gt=0, lt=0.5)
    seed: int = 7
    near_duplicates: Literal["group", "accept"] = Field(
        "group",
        description="group: copies, and what looks alike where no lesion is known, are one lesion",
    )
    leaky: bool = Field(
        False, description="deal single images: only to show how much that flatters a model"
    )


class DataSection(StageConfig):
    """Which images, for which task, at which size."""

    source: str = Field("auto", description="auto, or one of the registered sources")
    path: str | None = Field(None, description="the folder of the images")
    task: str = Field("seven_class", description="seven_class, malignancy, or a path to a YAML")
    image_size: int = Field(96, ge=16, le=1024)
    crop_mode: Literal["crop", "stretch"] = "crop"
    enhance: tuple[str, ...] = Field(
        (), description="registered enhancements after crop and resize, in their order"
    )
    max_failures: float = Field(0.01, ge=0, le=1, description="share of broken images tolerated")
    split: SplitRule = SplitRule()
    synthetic: SynthesizeConfig = SynthesizeConfig()

    @field_validator("enhance", mode="before")
    @classmethod
    def _accept_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class ModelSection(StageConfig):
    """Which network, and where its weights start."""

    architecture: str = "cnn"
    weights: str = Field("none", description="none, imagenet, or a path to a weights file")
    dropout: float = Field(0.3, ge=0, lt=1)


class ImportedSection(StageConfig):
    """A model that was trained elsewhere and takes the place of training."""

    file: str = Field(description="a .keras or .h5 file, or the folder of a SavedModel")
    pixels: Literal["0..255", "0..1", "-1..1", "caffe", "imagenet"] = Field(
        "0..255", description="what the model was fed"
    )
    labels: tuple[str, ...] = Field(
        (), description="in the order of the model's outputs; default: the task's order"
    )


class TrainSection(StageConfig):
    """How the network is trained."""

    epochs: int = Field(30, ge=1)
    batch_size: int = Field(32, ge=1, description="images a step, of all replicas together")
    micro_batches: int = Field(
        1, ge=1, description="parts of a batch whose gradients are accumulated, to save memory"
    )
    grow: tuple[int, ...] = Field(
        (), description="smaller image sizes for the first epochs, in equal parts"
    )
    learning_rate: float = Field(1e-3, gt=0)
    warmup_epochs: float = Field(1.0, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = Field(0.05, ge=0)
    head_epochs: int = Field(
        0, ge=0, description="first epochs in which only the last layer learns, on fixed features"
    )
    head_learning_rate: float = Field(
        5e-3, gt=0, description="constant rate of the first epochs, if there are such"
    )
    lowest_rate: float = Field(
        1.0, gt=0, le=1, description="share of the rate at which the first layer learns"
    )
    imbalance: tuple[str, ...] = Field(
        ("sqrt_sampling", "sqrt_class_weight"),
        description="registered choices, as name or name:strength",
    )
    augment: str = "dermoscopy"
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="momentum of averaged weights, which take the weights' place after each epoch",
    )
    mixed_precision: bool = False
    distribute: Literal["none", "mirrored", "multi_worker"] = Field(
        "none",
        description="share each batch among this machine's GPUs, or the workers of TF_CONFIG",
    )
    patience: int = Field(10, ge=1, description="epochs without a better validation score")
    seed: int = 1

    def list_sizes(self, size: int) -> tuple[int, ...]:
        """Return the image sizes that training goes through, the last of them `size`."""
        return (*self.grow, size)

    def grows_to(self, size: int, smallest: int = 1) -> bool:
        """Whether these rise from `smallest` or more, and there is an epoch for each."""
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
    """Which training images int8 ranges are measured on, and how."""

    images: int = Field(210, ge=8)
    draw: Literal["balanced", "natural"] = "balanced"
    cover: tuple[Literal["site", "brightness"], ...] = Field(
        ("site", "brightness"), description="what the images of each class are spread over"
    )
    list: str | None = Field(None, description="a shipped list, or a CSV file, instead of a draw")
    observer: str = Field("min_max", description="one of the registered observers")
    seed: int = 7

    @field_validator("cover", mode="before")
    @classmethod
    def _accept_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class QuantizeRule(StageConfig):
    """How a calibrated engine is quantized, beyond the ranges."""

    correct_bias: bool = Field(
        True, description="let biases take back what rounded weights shift on average"
    )
    reduce_range: bool = Field(
        False,
        description="7-bit weights where a runtime's kernels overflow (ONNX Runtime on x86 CPUs "
        "without VNNI)",
    )


class SensitivityRule(StageConfig):
    """How the layers are found that stay in higher precision (precision ``mixed``).

    The budget counts trials, not minutes, so that the same layers are found on any machine.
    """

    images: int = Field(
        64, ge=16, description="validation images on which each layer is quantized alone"
    )
    trials: int = Field(
        32, ge=1, description="sets of layers that may be tried on all validation images"
    )


class StabilityRule(StageConfig):
    """How much int8 engines depend on which images were drawn for calibration."""

    draws: int = Field(0, ge=0, description="further draws to make each int8 engine from")


class VerifyRule(StageConfig):
    """How near an engine must be to its parent; measured on validation images.

    ``float`` is for float32, ``half`` for float16, ``int8`` for all with weights of 8 bits.
    """

    images: int = Field(128, ge=16)
    float_images: int = Field(
        32, ge=16, description="for float32: the same sums in another order differ on all or none"
    )
    min_agreement_float: float = Field(0.99, ge=0, le=1)
    max_mean_drift_float: float = Field(1e-3, gt=0)
    min_agreement_half: float = Field(0.98, ge=0, le=1)
    max_mean_drift_half: float = Field(5e-3, gt=0)
    min_agreement_int8: float = Field(0.90, ge=0, le=1)
    max_mean_drift_int8: float = Field(0.05, gt=0)
    min_agreement_qat: float = Field(
        0.99, ge=0, le=1, description="of int8 with the rounded model that was trained (qat)"
    )
    signal_images: int = Field(
        8, ge=0, description="images for the signal-to-noise ratio of each layer, 0 for none"
    )


class EvaluateRule(StageConfig):
    """How the test split is judged, and the rule that freezes a threshold on validation."""

    threshold: str = Field("youden", description="youden, or sensitivity:S, chosen on validation")
    resamples: int = Field(1000, ge=100)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    seed: int = 0

    @field_validator("threshold")
    @classmethod
    def _check_threshold(cls, value: str) -> str:
        if re.fullmatch(THRESHOLD_RULE, value) is None:
            raise ValueError(
                "expected youden, or sensitivity:S with 0 < S <= 1, such as sensitivity:0.90"
            )
        return value


class ExplainRule(StageConfig):
    """What the report shows of where the model finds its evidence."""

    images: int = Field(12, ge=0, le=96, description="test images with heatmaps, 0 for none")


class BenchRule(StageConfig):
    """How latency is timed."""

    rounds: int = Field(100, ge=20)
    warmup: int = Field(10, ge=1)
    threads: int = Field(1, ge=1)
    repetition: int = Field(0, ge=0, description="another number measures anew")
    provider: str | None = Field(
        None, description="what ONNX Runtime is asked for, as CUDAExecutionProvider; default: CPU"
    )


class Recipe(StageConfig):
    """A whole system, from images to report."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_]*$")
    description: str = ""
    data: DataSection = DataSection()
    model: ModelSection = ModelSection()
    imported: ImportedSection | None = Field(
        None, description="a trained model, in the place of model and train"
    )
    train: TrainSection = TrainSection()
    compress: tuple[dict[str, dict[str, Any]], ...] = ()
    calibration: CalibrateConfig = CalibrateConfig()
    convert: tuple[str, ...] = Field(
        ("keras:float32", "tflite:float32", "tflite:int8", "onnx:float32", "onnx:int8"),
        min_length=1,
    )
    quantize: QuantizeRule = QuantizeRule()
    sensitivity: SensitivityRule = SensitivityRule()
    stability: StabilityRule = StabilityRule()
    verify: VerifyRule = VerifyRule()
    evaluate: EvaluateRule = EvaluateRule()
    explain: ExplainRule = ExplainRule()
    bench: BenchRule = BenchRule()
    gate: tuple[str, ...] = Field(
        (DEFAULT_GATES,),
        description="what an engine must hold, as macro_auc >= parent - 0.01 @ 0.95; default "
        "stands for the gates of the task",
    )
    unresolved: Literal["warn", "fail"] = Field(
        "warn", description="what becomes of a gate that too few lesions leave open"
    )
    bundle: tuple[str, ...] = Field((), description="devices, as linux-arm64 or android")

    @model_validator(mode="before")
    @classmethod
    def _rename_keys(cls, value: Any) -> Any:
        return rename_keys(value) if isinstance(value, dict) else value

    @field_validator("gate", mode="before")
    @classmethod
    def _refuse_mapping(cls, value: Any) -> Any:
        if isinstance(value, dict):
            raise UsageError(
                "the recipe's gate is a mapping, as earlier versions had it; expected a list of "
                f"lines, as gate: {translate_mapping(value)}"
            )
        return (value,) if isinstance(value, str) else value

    @field_validator("gate")
    @classmethod
    def _parse_gates(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Return the gates in one spelling, so that equal ones make equal keys."""
        parsed = {entry: str(parse_gate(entry)) for entry in value if entry != DEFAULT_GATES}
        parse_gates(list(parsed))
        return tuple(dict.fromkeys(parsed.get(entry, entry) for entry in value))
