"""The contract of back ends and engines: the public methods check, small hooks vary."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends.execution import Execution
from lesiontk.backends.foreign import ForeignDescription
from lesiontk.backends.operator_profile import OperatorCost, OperatorProfile
from lesiontk.backends.quantized_tensors import QuantizedTensor
from lesiontk.backends.requirements import check_distributions
from lesiontk.calibration.ranges import Ranges, TensorReader, collect_ranges
from lesiontk.data.enhance import check_enhancements
from lesiontk.document import Record
from lesiontk.errors import DataError, LesionTKError, UsageError
from lesiontk.evaluate.assessment import Assessment
from lesiontk.evaluate.metrics import check_probabilities
from lesiontk.evaluate.signals import Signals
from lesiontk.files.strict_json import parse_json
from lesiontk.records import Availability, EngineSpec, Preprocessing

SPEC_KEY = "lesiontk"
"""The metadata key of the `EngineSpec` in an engine file."""
FEATURES, LOGITS = "features", "logits"
"""Names of the further outputs that `Backend.add_signal_outputs` gives an engine."""
KEPT_SOFTMAX = (
    "kept in float on purpose: on a few logits it costs nothing, and int8 probabilities would have "
    "steps of 1/256"
)
KEPT_BY_SEARCH = "among the layers that the sensitivity search keeps in float"


@dataclass(frozen=True, slots=True)
class PrecisionInfo:
    """Where a precision is derived from: ``model``, or another ``backend:precision``.

    `saturates` is True if the runtime's 8-bit kernels overflow on some CPUs, so that 7-bit weights
    are an option. `mixed` is the precision of the layers that int8 harms most: the fastest besides
    int8 that can represent them. On a CPU that is float32: neither XNNPACK nor ONNX Runtime has x86
    kernels for 16 bits.
    """

    derived_from: str
    calibrated: bool = False
    saturates: bool = False
    mixed: str = ""


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """A back end's name, precisions, file suffix, and the distributions it needs.

    Of these `tools`, `runtime` opens and runs an engine; by default all of them. If
    `exposes_activations`, it can read every tensor of a float engine, so that ranges are measured
    once for all engines derived from it. If `returns_features`, an engine can also return pooled
    features and logits, for its input checks. If `profiles`, it measures its operators. If
    `opt_in`, its engines are for other machines and are made only on request. `title` is its name
    in reports, by default `name`.
    """

    name: str
    precisions: Mapping[str, PrecisionInfo]
    suffix: str
    tools: tuple[str, ...]
    exposes_activations: bool = False
    returns_features: bool = False
    profiles: bool = False
    opt_in: bool = False
    runtime: tuple[str, ...] = ()
    title: str = ""


@dataclass(frozen=True, slots=True)
class QuantizationPlan:
    """What is quantized and how; a back end implements all of it or raises.

    Weights: int8, symmetric, per output channel. Activations: 8 bits, asymmetric (symmetric where
    the runtime supports nothing else), per tensor, ranges measured by `observer` on `images` uint8
    [N, S, S, 3]. `keep_float` lists the kinds of operators that stay in float32, by their name in
    the source graph, `float_layers` the single layers, of those that `Backend.list_layers` names,
    that stay in the precision `PrecisionInfo.mixed`.
    `ranges` are those of the source graph's tensors, by name, if measured before. With
    `correct_bias`, biases compensate the mean shift caused by weight rounding; with `reduce_range`,
    weights have 7 bits where `PrecisionInfo.saturates`.
    """

    images: NDArray[np.uint8]
    observer: str
    keep_float: tuple[str, ...] = ("softmax",)
    float_layers: frozenset[str] = frozenset()
    ranges: Mapping[str, tuple[float, float]] | None = None
    correct_bias: bool = True
    reduce_range: bool = False

    def find_ranges(self, open_reader: Callable[[], TensorReader]) -> Ranges:
        """Return the ranges measured before, or those measured now with `open_reader`."""
        if self.ranges is not None:
            return dict(self.ranges)
        images = (image[np.newaxis] for image in self.images)
        return collect_ranges(open_reader(), images, self.observer)

    def images_for_means(self) -> Iterator[NDArray[np.uint8]]:
        """Yield up to 16 evenly spaced images, each [1, S, S, 3]; they suffice for means."""
        for row in np.linspace(0, len(self.images) - 1, min(16, len(self.images))).astype(int):
            yield self.images[row][np.newaxis]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization(Record):
    """How an engine is quantized; None where that is not so, or not known.

    Of `float_layers` that stay in float, `float16_layers` are halved. `activations` is their
    scheme, such as ``symmetric``. `otherwise_than_trained` says why the rounding is not that of
    quantization-aware training.
    """

    SPARSE: ClassVar[bool] = True

    weight_bits: int | None = None
    activation_bits: int | None = None
    activations: str | None = None
    corrected_biases: int | None = None
    float_layers: int | None = None
    float16_layers: int | None = None
    otherwise_than_trained: str | None = None


@dataclass(frozen=True, slots=True)
class ConversionRecord:
    """The result of a conversion: its file, the operators left in float, and the quantization.

    `examination` is the output of the target's own tools (TensorRT's parser and builder).
    """

    file: str
    float_operators: tuple[str, ...] = ()
    quantization: Quantization = field(default_factory=Quantization)
    examination: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineStructure(Record):
    """Bytes of weights by type, and operators by the type they compute in.

    `saturated_biases` are the channels whose stored bias is at a limit of int32, by layer;
    `float_only` is the number of operators without an integer form on the target.
    """

    weight_bytes: Mapping[str, int]
    operators: Mapping[str, int]
    saturated_biases: Mapping[str, Sequence[int]] = field(default_factory=dict)
    float_only: int = 0

    @property
    def int8_weight_share(self) -> float:
        """Share of the weight *elements* that are stored in 8 bits, 0..1."""
        return self._weight_share("int8", "uint8")

    @property
    def float16_weight_share(self) -> float:
        """Share of the weight *elements* that are stored in float16, 0..1."""
        return self._weight_share("float16")

    @property
    def integer_operator_share(self) -> float:
        """Share of the operators that compute in integers, 0..1, of those that could."""
        total = sum(self.operators.values()) - self.float_only
        integer = sum(self.operators.get(kind, 0) for kind in ("int8", "uint8", "int16"))
        return integer / total if total else 0.0

    def _weight_share(self, *kinds: str) -> float:
        sizes = {"int8": 1, "uint8": 1, "float16": 2, "float32": 4}  # no int32 or int64: biases
        elements = {k: v / sizes[k] for k, v in self.weight_bytes.items() if k in sizes}
        total = sum(elements.values())
        return sum(elements.get(kind, 0.0) for kind in kinds) / total if total else 0.0


class Engine(ABC):
    """A loaded engine. ``with open_engine(path) as engine: engine.predict(images)``."""

    assessment: Assessment | None = None
    """The evaluation stored in its file; `open_engine` reads it."""
    batches: ClassVar[bool] = False
    """Whether it runs several images at once, instead of one after the other."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return probabilities float32 [N, C] for uint8 RGB images [N, S, S, 3].

        Raises `DataError` naming what was received if the images' shape or type differ, if the
        runtime fails, or if an output is not probabilities: not finite, outside 0..1, or with a
        sum further than `ROW_SUM_TOLERANCE` from 1.
        """
        outputs = self._restore(self.infer(images))
        if len(outputs):
            try:
                check_probabilities("its output", outputs)
            except DataError as error:
                raise DataError(
                    f"the engine does not return probabilities: {error} The file is damaged or its "
                    "model is; convert the model again."
                ) from error
        return outputs

    def _restore(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return outputs as they were before what a format did to them; outside of all timing."""
        return outputs

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the outputs as `predict` does, without a check of their values.

        For verification, which judges them itself, and for timing. Raises `DataError` for images
        of another shape or type, a runtime that fails, or outputs of another shape.
        """
        self._check_images(images)
        if len(images) == 0:
            return np.zeros((0, len(self.spec.labels)), np.float32)
        try:
            outputs = np.asarray(self._infer(images), dtype=np.float32)
        except (LesionTKError, MemoryError):
            raise
        except Exception as error:  # the runtimes' own exceptions share no public base class
            raise DataError(
                f"the engine failed during inference: {error} Convert the model again."
            ) from error
        shape = (len(images), len(self.spec.labels))
        if outputs.shape != shape:
            raise DataError(
                f"the engine returns {list(outputs.shape)}; expected {list(shape)}, a probability "
                f"of each of its labels {', '.join(self.spec.labels)}. Convert the model again."
            )
        return outputs

    def expose_features(self) -> int:
        """Make `predict_features` possible and return the width of the pooled features, which the
        last layer reads; 0 if the engine has none that can be read."""
        return 0

    def predict_features(
        self, images: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return probabilities as `predict`, and pooled features float32 [N, D], of one inference.

        Call `expose_features` before; it has returned D above 0.
        """
        self._check_images(images)
        probabilities, features = self._infer_features(images)
        check_probabilities("the engine's output", probabilities)
        return probabilities.astype(np.float32), features.astype(np.float32)

    def predict_signals(self, images: NDArray[np.uint8]) -> Signals:
        """Return probabilities as `predict`, pooled features and logits, of one inference; N > 0.

        Only of a file that `Backend.add_signal_outputs` made. Raises `UsageError` for another one,
        `DataError` as `predict` does.
        """
        self._check_images(images)
        outputs = self._infer_outputs(images)
        if len(outputs) != 3:
            raise UsageError(
                f"this engine of {self.spec.backend} returns probabilities only; expected one that "
                "`lesiontk input-checks` wrote."
            )
        check_probabilities("the engine's output", outputs[0])
        rows = (np.asarray(values, np.float32).reshape(len(images), -1) for values in outputs)
        return Signals(*rows)

    def _infer_features(self, images: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return probabilities [N, C] and features [N, D]; N is at least one."""
        raise NotImplementedError(f"{type(self).__name__} exposes no features")

    def _check_images(self, images: NDArray[np.uint8]) -> None:
        expected = self.spec.input_shape
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != expected:
            raise DataError(
                f"the engine got {images.dtype} {list(images.shape)}; expected uint8 "
                f"[N, {', '.join(map(str, expected))}] in RGB. `lesiontk.load_picture` makes it."
            )

    @abstractmethod
    def _infer(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        """Return probabilities [N, C]; N is at least one."""

    def _infer_outputs(self, images: NDArray[np.uint8]) -> Sequence[NDArray[Any]]:
        """Return every output of the file, each [N, …]; most files have the probabilities only."""
        return (self._infer(images),)

    def describe_execution(self) -> tuple[Execution, ...]:
        """Return which provider or delegate was requested and which one runs the graph."""
        return ()

    def close(self) -> None:  # noqa: B027 - most engines have nothing to release
        """Release the engine's resources."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Backend(ABC):
    """One inference framework."""

    info: ClassVar[BackendInfo]

    def available(self) -> Availability:
        """Return whether its tools are installed, without importing heavy modules."""
        return check_distributions(self.info.tools, "`pip install lesiontk` installs it.")

    def list_conversion_tools(self) -> tuple[str, ...]:
        """Return the distributions that an engine and its examination depend on."""
        return self.info.tools

    def list_runtime_tools(self) -> tuple[str, ...]:
        """Return the distributions that the outputs of an engine depend on here."""
        return self.info.runtime or self.info.tools

    def convert(
        self,
        source: Path,
        precision: str,
        spec: EngineSpec,
        quantization: QuantizationPlan | None,
        out: Path,
        *,
        examine: bool = True,
    ) -> ConversionRecord:
        """Write the engine of `precision` into the folder `out`.

        `source` is the file of the parent that `PrecisionInfo.derived_from` names. Without
        `examine` the target's own tools are not run, as in trials. Raises `UsageError` if the
        precision needs calibration images and there is no plan.
        """
        if self.info.precisions[precision].calibrated and quantization is None:
            raise UsageError(
                f"{self.info.name}:{precision} needs a quantization plan with calibration images."
            )
        record = self._convert(source, precision, spec, quantization, out)
        path = out / record.file
        return replace(
            record,
            float_operators=self.list_float_operators(path, precision),
            examination=self.examine(path, precision) if examine else {},
        )

    @abstractmethod
    def _convert(
        self,
        source: Path,
        precision: str,
        spec: EngineSpec,
        quantization: QuantizationPlan | None,
        out: Path,
    ) -> ConversionRecord:
        """Write the engine; a calibrated precision has a plan."""

    def examine(self, path: Path, precision: str) -> Mapping[str, Any]:
        """Return the output of the target's own tools for an engine file; most have none."""
        return {}

    @abstractmethod
    def open(self, path: Path, *, threads: int = 1) -> Engine:
        """Load an engine file."""

    @abstractmethod
    def read_spec(self, path: Path) -> EngineSpec:
        """Return the description in an engine file, without loading its runtime."""

    @abstractmethod
    def add_record(self, content: bytes, text: str) -> bytes:
        """Return the engine file with `text` added; `split_record` is its exact inverse."""

    @abstractmethod
    def split_record(self, content: bytes) -> tuple[bytes, str | None]:
        """Return the file without the added text, and the text or None."""

    def read_assessment(self, path: Path) -> Assessment | None:
        """Return the evaluation stored in an engine file, or None.

        Raises `DataError` if that is damaged or was written for another file.
        """
        try:
            content, text = self.split_record(path.read_bytes())
            assessment = None if text is None else Assessment.parse(text)
        except DataError as error:
            raise DataError(f"{path.name}: {error}") from error
        if assessment and assessment.content != hashlib.sha256(content).hexdigest():
            raise DataError(
                f"{path.name} was changed after its threshold and figures were written into it; "
                "fetch the file again, or evaluate the engine and bundle it again."
            )
        return assessment

    def open_on(self, provider: str, path: Path, *, threads: int = 1) -> Engine:
        """Load an engine file with an execution provider; most back ends have only one."""
        return self.open(path, threads=threads)

    def read_backend_name(self, path: Path) -> str | None:
        """Return the back end in a file's description, where several share a suffix."""
        return None

    def carries_description(self, path: Path) -> bool:
        """Return whether a file has a lesiontk description; True if foreign files cannot run."""
        return True

    def open_foreign(self, path: Path, description: ForeignDescription, threads: int) -> Engine:
        """Load a file of other tools, described by `description`.

        Only for back ends whose `carries_description` can be False.
        """
        raise NotImplementedError(f"{self.info.name} does not run {path.name} of other tools")

    @abstractmethod
    def inspect(self, path: Path) -> EngineStructure:
        """Return weights and operators by type, read from the file itself."""

    def add_signal_outputs(self, content: bytes) -> bytes:
        """Return an engine file that also returns pooled features and logits.

        `content` is a file without an evaluation (`split_record`). The probabilities stay the same
        bits. Raises `UsageError` for a back end without such outputs, `DataError` for a graph
        without global pooling or softmax.
        """
        raise UsageError(
            f"{self.info.name} engines cannot return features; expected one of tflite, onnx or "
            "tensorrt."
        )

    def list_float_operators(self, path: Path, precision: str) -> tuple[str, ...]:
        """Return kind and name of the operators of a file that do not compute in `precision`.

        They are read from the file itself; empty for a float precision.
        """
        return ()

    def explain_float_operator(self, operator: str, precision: str) -> str | None:
        """Return why an operator such as ``SOFTMAX -> name`` stayed in float, or None (a fault)."""
        kind = operator.partition(" ")[0]
        if kind.lower() == "softmax":
            return KEPT_SOFTMAX
        reason = self._explain_float(kind, precision)
        return KEPT_BY_SEARCH if reason is None and precision == "mixed" else reason

    def _explain_float(self, kind: str, precision: str) -> str | None:
        """Return why such a kind of operator may stay in float, except Softmax."""
        return None

    def list_unexplained(self, path: Path, precision: str) -> tuple[str, ...]:
        """Return the operators of `list_float_operators` that stay in float without a reason."""
        found = self.list_float_operators(path, precision)
        return tuple(name for name in found if self.explain_float_operator(name, precision) is None)

    def read_tensors(self, path: Path) -> TensorReader:
        """Return a reader of every float tensor of a float engine for one image.

        Only if `BackendInfo.exposes_activations`.
        """
        raise NotImplementedError(f"{self.info.name} does not read tensors of {path.name}")

    def list_layers(self, path: Path) -> tuple[str, ...]:
        """Return the layers of a float engine that can be quantized individually, in order.

        Only if a precision has `PrecisionInfo.mixed`.
        """
        raise NotImplementedError(f"{self.info.name} does not list the layers of {path.name}")

    def read_both(self, parent: Path, child: Path) -> tuple[TensorReader, TensorReader]:
        """Return readers of a float engine and of one derived from it, with matching names.

        Only if `BackendInfo.exposes_activations`. Quantized activations come as real
        values.
        """
        return self.read_tensors(parent), self.read_tensors(child)

    def count_costs(self, path: Path) -> tuple[OperatorCost, ...]:
        """Return the work of each operator with weights for one image; empty if not known."""
        return ()

    def profile(self, path: Path, *, rounds: int, threads: int = 1) -> OperatorProfile:
        """Return the time of each operator of an engine file, and of the whole.

        Raises `UsageError` for a back end that does not tell, and `MissingRequirementError` where
        the engine is emulated.
        """
        raise UsageError(
            f"{self.info.name} engines have no profile of their operators; expected one of tflite, "
            "onnx, openvino or tensorrt."
        )

    def list_quantized_tensors(self, path: Path) -> tuple[QuantizedTensor, ...]:
        """Return the quantized activations in the file; empty where they cannot be read."""
        return ()

    def examine_runtime(self) -> tuple[Execution, ...]:
        """Return what its runtime was requested to use here and what ran, on a tiny graph.

        Only for an available back end; most have no choice.
        """
        return ()


def dump_spec(spec: EngineSpec) -> str:
    """Return the spec as the JSON text stored in engine files."""
    return json.dumps(asdict(spec), sort_keys=True)


def parse_spec(text: str | bytes | None, path: Path) -> EngineSpec:
    """Return the spec of an engine file. Raises `DataError` if it is missing or invalid."""
    if text is None:
        raise DataError(
            f"{path.name} contains no lesiontk description (labels, preprocessing); convert it "
            "with `lesiontk convert`, so that a device cannot get them wrong."
        )
    document = parse_json(text, f"the description in {path.name}")
    try:
        if not isinstance(document["labels"], list):
            raise TypeError("the labels are not a list")
        document["labels"] = tuple(document["labels"])
        document["preprocessing"] = Preprocessing.from_document(document["preprocessing"])
        check_enhancements(document["preprocessing"].enhance)
        return EngineSpec(**document)
    except UsageError as error:
        raise DataError(
            f"{path.name} needs preprocessing that this lesiontk does not support: {error} Use the "
            "lesiontk that made it, or a newer one."
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path.name} contains a description that this lesiontk cannot read ({error!r}); "
            "convert the model again."
        ) from error
