"""Back ends: one file each, registered here. They convert models and open engines."""

from __future__ import annotations

from pathlib import Path

from lesiontk.backends.backend import Backend, Engine
from lesiontk.backends.foreign import ForeignDescription
from lesiontk.errors import DataError, MissingRequirementError, UsageError, suggest
from lesiontk.files.regular_file import check_regular
from lesiontk.registry import Registry

BACKENDS: Registry[type[Backend]] = Registry("back end")
BACKENDS.register("keras", "lesiontk.backends.keras.backend:KerasBackend")
BACKENDS.register("tflite", "lesiontk.backends.tflite.backend:TFLiteBackend")
BACKENDS.register("onnx", "lesiontk.backends.onnx.backend:ONNXBackend")
BACKENDS.register("openvino", "lesiontk.backends.openvino.backend:OpenVINOBackend")
BACKENDS.register("tensorrt", "lesiontk.backends.tensorrt.backend:TensorRTBackend")


def list_targets() -> tuple[str, ...]:
    """Return every ``backend:precision`` that can be converted to."""
    return tuple(
        f"{name}:{p}" for name, backend in BACKENDS.items() for p in backend.info.precisions
    )


def parse_target(target: str) -> tuple[str, str]:
    """Return back end and precision of ``backend:precision``. Raises `UsageError` for others."""
    name, _, precision = target.partition(":")
    backend = BACKENDS.get(name)
    if precision not in backend.info.precisions:
        raise UsageError(
            f"{target!r}: {name} has no precision {precision!r}; known targets are "
            f"{', '.join(list_targets())}.{suggest(target, list_targets())}"
        )
    return name, precision


def returns_features(backend: str) -> bool:
    """Return whether engines of a back end can have features as outputs, for input checks."""
    return BACKENDS.get(backend).info.returns_features


def is_engine_file(reference: str) -> bool:
    """Return whether a reference is a path with the suffix of an engine file."""
    return Path(reference).suffix in {backend.info.suffix for _, backend in BACKENDS.items()}


def open_engine(path: Path | str, *, threads: int = 1, provider: str | None = None) -> Engine:
    """Return an open engine, with the back end of its file's suffix or description.

    `provider` is requested where the back end has a choice; `Engine.describe_execution` returns
    what runs.

    Raises `DataError` for a file that is missing, damaged, not regular or of an unknown suffix,
    `MissingRequirementError` if the back end cannot run here.
    """
    path = Path(path)
    check_regular(path, "engine file")
    backend = find_backend(path)()
    availability = backend.available()
    if not availability.available:
        raise MissingRequirementError(f"{path.name}: {availability.reason}")
    assessment = backend.read_assessment(path)
    engine = (
        backend.open(path, threads=threads)
        if provider is None
        else backend.open_on(provider, path, threads=threads)
    )
    if assessment is not None:
        try:
            assessment.check_labels(engine.spec)
        except DataError:
            engine.close()
            raise
    engine.assessment = assessment
    return engine


def open_any(
    path: Path, foreign: ForeignDescription | None, *, threads: int = 1, provider: str | None = None
) -> Engine:
    """Return an open engine; `foreign` describes a file without lesiontk metadata.

    Raises as `open_engine`.
    """
    if foreign is not None:
        check_regular(path, "engine file")
        backend = find_backend(path)()
        if not backend.carries_description(path):
            return backend.open_foreign(path, foreign, threads)
    return open_engine(path, threads=threads, provider=provider)


def find_backend(path: Path) -> type[Backend]:
    """Return the back end of a file, by its suffix and, if several share it, its metadata."""
    sharing: dict[str, list[str]] = {}
    for name, backend in BACKENDS.items():
        sharing.setdefault(backend.info.suffix, []).append(name)
    if path.suffix not in sharing:
        raise DataError(f"{path.name} is not a known engine; expected one of {', '.join(sharing)}.")
    names = sharing[path.suffix]
    described = BACKENDS.get(names[0])().read_backend_name(path) if len(names) > 1 else None
    return BACKENDS.get(described if described in names else names[0])
