"""The contract of back ends and engines: the public methods check, small hooks vary."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends.distributions import check_distributions
from lesiontk.data.enhance import check_enhancements
from lesiontk.errors import DataError, UsageError
from lesiontk.records import Availability, EngineSpec, Preprocessing

SPEC_KEY = "lesiontk"
"""The name under which an engine file carries its `EngineSpec`."""


@dataclass(frozen=True, slots=True)
class PrecisionInfo:
    """Where a precision is derived from: ``model``, or another ``backend:precision``."""

    derived_from: str
    calibrated: bool = False


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """A back end's name, precisions, file suffix, and the distributions it needs."""

    name: str
    precisions: Mapping[str, PrecisionInfo]
    suffix: str
    tools: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class QuantizationPlan:
    """What is quantized how; a back end realises all of it or refuses it.

    Weights: int8, symmetric, per output channel. Activations: 8 bits, asymmetric, per tensor,
    ranges measured by `observer` on `images` uint8 [N, S, S, 3]. `keep_float` lists the operators
    that stay in float32, by their name in the source graph.
    """

    images: NDArray[np.uint8]
    observer: str
    keep_float: tuple[str, ...] = ("softmax",)


@dataclass(frozen=True, slots=True)
class ConversionRecord:
    """What a conversion did: the file it wrote, and and each operator left in float."""

    file: str
    float_operators: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineStructure:
    """Bytes of weights by type, and operators by the type they compute in."""

    weight_bytes: Mapping[str, int]
    operators: Mapping[str, int]

    @property
    def int8_weight_share(self) -> float:
        """Share of the weight *elements* that are stored in 8 bits, 0..1."""
        sizes = {"int8": 1, "uint8": 1, "int32": 4, "float16": 2, "float32": 4}
        elements = {k: v / sizes[k] for k, v in self.weight_bytes.items() if k in sizes}
        elements.pop("int32", None)  # biases
        total = sum(elements.values())
        return (elements.get("int8", 0) + elements.get("uint8", 0)) / total if total else 0.0


class Engine(ABC):
    """A loaded engine. ``with open_engine(path) as engine: engine.predict(images)``."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return probabilities float32 [N, C] for uint8 RGB images [N, S, S, 3].

        Raises `DataError` naming what was received if shape or type differ.
        """
        expected = self.spec.input_shape
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != expected:
            raise DataError(
                f"the engine got {images.dtype} {list(images.shape)}; expected uint8 "
                f"[N, {', '.join(map(str, expected))}] in RGB. `lesiontk.load_picture` makes it."
            )
        if len(images) == 0:
            return np.zeros((0, len(self.spec.labels)), np.float32)
        return np.asarray(self._infer(images), dtype=np.float32)

    @abstractmethod
    def _infer(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        """Return probabilities [N, C]; N is at least one."""

    def close(self) -> None:  # noqa: B027 - most engines hold nothing to release
        """Release what the engine holds."""

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
        """Whether it can run here, without importing what is heavy: are its tools installed?"""
        return check_distributions(self.info.tools, "`pip install lesiontk` brings it.")

    def convert(
        self,
        source: Path,
        precision: str,
        spec: EngineSpec,
        quantization: QuantizationPlan | None,
        out: Path,
    ) -> ConversionRecord:
        """Write the engine of `precision` into the folder `out`.

        `source` is the file of the parent that `PrecisionInfo.derived_from` names. Raises
        `UsageError` if the precision needs calibration images and there is no plan.
        """
        if self.info.precisions[precision].calibrated and quantization is None:
            raise UsageError(
                f"{self.info.name}:{precision} needs a quantization plan with calibration images."
            )
        return self._convert(source, precision, spec, quantization, out)

    @abstractmethod
    def _convert(
        self,
        source: Path,
        precision: str,
        spec: EngineSpec,
        quantization: QuantizationPlan | None,
        out: Path,
    ) -> ConversionRecord:
        """Write the engine; a precision that is calibrated comes with its plan."""

    @abstractmethod
    def open(self, path: Path, *, threads: int = 1) -> Engine:
        """Load an engine file."""

    @abstractmethod
    def inspect(self, path: Path) -> EngineStructure:
        """Return what the file is made of, read from the file itself."""


def dump_spec(spec: EngineSpec) -> str:
    """Return the spec as the JSON text that engine files carry."""
    return json.dumps(asdict(spec), sort_keys=True)


def parse_spec(text: str | None, path: Path) -> EngineSpec:
    """Return the spec that an engine file carries; `DataError` if it carries none or another."""
    if text is None:
        raise DataError(
            f"{path.name} carries no lesiontk description (labels, preprocessing); convert it with "
            "`lesiontk convert`, so that a device cannot get them wrong."
        )
    try:
        document = json.loads(text)
        document["labels"] = tuple(document["labels"])
        document["preprocessing"] = Preprocessing(**document["preprocessing"])
        check_enhancements(document["preprocessing"].enhance)
        return EngineSpec(**document)
    except UsageError as error:
        raise DataError(
            f"{path.name} was trained on pictures that this lesiontk cannot make: {error} Use the "
            "lesiontk that made it, or a newer one."
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path.name} carries a description that this lesiontk cannot read ({error!r}); "
            "convert the model again."
        ) from error
