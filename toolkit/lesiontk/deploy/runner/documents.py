"""The keys of the documents that the runner prints, sends and stores.

The classes are dictionaries at run time: their keys and the order of them are the format.
"""

from __future__ import annotations

from typing import TypedDict

from lesiontk.evaluate.input_checks import InputVerdict


class PointDocument(TypedDict):
    """A frozen threshold on the summed probability of the labels `positive`, and its origin."""

    rule: str
    threshold: float
    positive: list[str]


class Classification(TypedDict):
    """The most probable class, and each label's probability."""

    label: str
    probabilities: dict[str, float]


class Decision(Classification, total=False):
    """`confidence` with a temperature, `score` and `positive` with an operating point.

    `input` is added where there are input checks.
    """

    confidence: float
    score: float
    positive: bool
    input: InputVerdict


class NamedImage(TypedDict):
    """An image file."""

    image: str


class Prediction(NamedImage, Decision):
    """The decision on an image."""


class LabelledPrediction(Prediction):
    """The decision on an image of the label `truth`."""

    truth: str
    lesion: str


class Failure(NamedImage):
    """An image that could not be read, and the reason."""

    message: str


class BundleIdentity(TypedDict):
    """What answered."""

    bundle: str
    bundle_sha256: str
    engine_sha256: str
    precision: str
    research_override: str | None


class Answers(BundleIdentity):
    """The answers to images, the same from ``predict`` and from ``serve``."""

    labels: list[str]
    operating_point: PointDocument | None
    predictions: list[Prediction]
    failures: list[Failure]
    notice: str


class EvaluationDocument(BundleIdentity):
    """The scores and predictions of `n` labelled images, and those that could not be read."""

    labels: list[str]
    operating_point: PointDocument | None
    n: int
    scores: object
    predictions: list[LabelledPrediction]
    failures: list[Failure]
    notice: str


class Latency(TypedDict):
    """Milliseconds of single images."""

    n: int
    median: float
    p90: float
    samples: list[float]


class Agreement(TypedDict):
    """Outputs beside those expected; `mean_drift` is None if one is not finite."""

    n: int
    finite: bool
    probabilities: bool
    agreement: float
    min_agreement: float
    mean_drift: float | None
    max_mean_drift: float
    as_expected: bool


class Checked(TypedDict):
    """Whether a check passed; None if it could not be made."""

    as_expected: bool | None


class StatusAgreement(Checked, total=False):
    """Verdicts of input checks beside those expected; without input checks `n` is 0."""

    n: int
    agreement: float | None
    min_agreement: float


class Candidate(TypedDict):
    """An engine, and why it does not pass its self-test; `reason` is empty if it does."""

    precision: str
    as_expected: bool
    reason: str


class OpenedCandidate(Candidate, total=False):
    """The parts of its self-test, if it could be opened."""

    answers: Agreement
    input_checks: StatusAgreement


class LatencyRatio(TypedDict):
    """The median latency of one engine over that of another, with its interval.

    `samples_ms` maps each precision to the images' milliseconds of each block.
    """

    ratio: float
    ratio_low: float
    ratio_high: float
    confidence: float
    blocks: int
    block: int
    samples_ms: dict[str, list[list[float]]]


class MeasuredOn(TypedDict):
    """What a choice depends on: runtime, GPU, and the hash of both engines."""

    runtime: str | None
    version: str | None
    device: str | None
    engines: list[str]


class Choice(TypedDict):
    """Which of two engines a device keeps, by precision; `latency` is None if only one passed."""

    kept: str
    reason: str
    candidates: list[OpenedCandidate]
    max_latency_ratio: float
    latency: LatencyRatio | None
    measured_on: MeasuredOn


class DlaLayers(TypedDict):
    """As `lesiontk.backends.tensorrt.dla_layers.DlaLayers`, which not every bundle contains."""

    cores: int
    layers: list[str]
    gpu_layers: list[str]


class EngineDescription(TypedDict, total=False):
    """What runs; each runtime has its own keys beside `runtime` and `version`."""

    runtime: str
    version: str
    threads: int
    providers: list[str]
    url: str
    model: str
    precision: str
    device: str
    engine: str
    plan_bytes: int
    warning: str
    dla: DlaLayers | None
    choice: Choice
