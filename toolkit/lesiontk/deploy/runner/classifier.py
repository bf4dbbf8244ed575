"""The bundle's engine with its preprocessing and its decision."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from lesiontk.deploy.runner.contract import Bundle
from lesiontk.deploy.runner.decision import are_probabilities, decide
from lesiontk.deploy.runner.documents import Answers, EngineDescription, Failure, Prediction
from lesiontk.evaluate.input_checks import Checks, InputVerdict, check_input, load_checks


class MissingRequirementError(Exception):
    """Pillow is missing or too old."""

    exit_code = 3


class OutputError(Exception):
    """The engine's outputs are not probabilities of the labels."""

    exit_code = 2


class Engine(Protocol):
    """A runtime's engine: uint8 [N, S, S, 3] in, float32 [N, C] out."""

    description: EngineDescription

    def predict(self, images: Any) -> Any:
        """Return probabilities float32 [N, C]."""

    def read_signals(self) -> Any:
        """Return the last image's outputs, float32: probabilities, features and logits."""

    def close(self) -> None:
        """Release the engine."""


def import_picture() -> Any:
    """Return the module that reads images, the only one that needs Pillow."""
    try:
        from PIL.Image import Resampling  # noqa: F401 - not in older versions of Pillow

        from lesiontk.deploy.runner import picture
    except ImportError as error:
        raise MissingRequirementError(
            f"Pillow 9.1 or later, to read images ({error}): pip install 'Pillow>=9.1'"
        ) from error
    return picture


class Classifier:
    """An opened engine: `classify_bytes` and `classify_file` return predictions of images.

    `engine` is the runtime's; `description` says what runs. It is used by one thread at a time.
    """

    def __init__(self, bundle: Bundle, runtime: str | None = None, threads: int = 1) -> None:
        self.bundle = bundle
        module = bundle.runtimes[runtime or next(iter(bundle.runtimes))]
        self.engine: Engine = importlib.import_module(module).open_engine(
            bundle.engine, bundle.document, threads
        )
        self.description = self.engine.description
        self._checks = load_checks(bundle.folder) if bundle.has_input_checks else None

    def __enter__(self) -> Classifier:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the engine."""
        self.engine.close()

    def infer(self, images: Any) -> Any:
        """Return outputs float32 [N, C] of uint8 [N, S, S, 3].

        Raises `OutputError` if C is not the number of labels.
        """
        labels = self.bundle.labels
        outputs = np.asarray(self.engine.predict(images), np.float32)
        if outputs.shape != (len(images), len(labels)):
            raise OutputError(
                f"the engine returns {list(outputs.shape)}; expected "
                f"{[len(images), len(labels)]}, a probability of each of {', '.join(labels)}"
            )
        return outputs

    def classify_file(self, path: Path) -> Prediction:
        """Return the prediction of an image file. Raises `PictureError` or `OutputError`."""
        return self._classify(import_picture().read_picture(path), str(path))

    def classify_bytes(self, data: bytes, name: str) -> Prediction:
        """Return the prediction of an image file's bytes, which messages call `name`."""
        return self._classify(import_picture().decode_picture(data, name=name), name)

    def _classify(self, image: Any, name: str) -> Prediction:
        bundle = self.bundle
        prepared = import_picture().prepare_picture(image, bundle.preprocessing)
        values = self.infer(prepared[np.newaxis])[0]
        if not are_probabilities(values[np.newaxis]):
            raise OutputError(
                f"{name}: the engine returns {values.tolist()}; expected finite probabilities "
                "that sum to 1. Its file is damaged, or this machine cannot run it: try "
                "`run.py self-test`"
            )
        prediction: Prediction = {
            "image": name,
            **decide(values, bundle.labels, bundle.point, bundle.temperature),
        }
        if self._checks is not None:
            prediction["input"] = self._check(self._checks, prepared, min(image.shape[:2]))
        return prediction

    def find_statuses(self, images: Any) -> list[str] | None:
        """Return the status of each engine input uint8 [N, S, S, 3]; None without input checks."""
        if self._checks is None:
            return None
        statuses = []
        for image in images:
            self.infer(image[np.newaxis])
            statuses.append(self._check(self._checks, image, image.shape[0])["status"])
        return statuses

    def _check(self, checks: Checks, prepared: Any, shorter_side: int) -> InputVerdict:
        return check_input(checks, prepared, shorter_side, *self.engine.read_signals())


def describe_engine(description: EngineDescription) -> list[str]:
    """Return what runs as lines of text: the runtime, which engine was kept and why, and a DLA."""
    simple = (f"{key} {value}" for key, value in description.items()
              if value not in ("", None) and not isinstance(value, dict))  # fmt: skip
    lines = ["engine: " + ", ".join(simple)]
    if "choice" in description:
        lines.append("kept {kept}: {reason}".format(**description["choice"]))
    dla = description.get("dla")
    if dla:
        lines.append(
            "DLA: {} core(s), not used; {} of {} layers could run there, not: {}".format(
                dla["cores"],
                len(dla["layers"]),
                len(dla["layers"]) + len(dla["gpu_layers"]),
                ", ".join(dla["gpu_layers"]) or "none",
            )
        )
    return lines


def answer(bundle: Bundle, predictions: list[Prediction], failures: list[Failure]) -> Answers:
    """Return the document of predictions, the same from ``predict`` and from ``serve``."""
    return {
        **bundle.identity,
        "labels": list(bundle.labels),
        "operating_point": bundle.point_document,
        "predictions": predictions,
        "failures": failures,
        "notice": bundle.notice,
    }
