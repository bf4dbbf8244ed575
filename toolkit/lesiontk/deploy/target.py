"""The interface of a bundle target, and the runtimes that a bundle can contain."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from lesiontk.errors import UsageError
from lesiontk.records import EngineSpec


@dataclass(frozen=True, slots=True)
class Runtime:
    """A file of the bundle that runs its engine, by its place in lesiontk.

    `parts` are further files of its package that it imports. ``requirements/NAME.txt`` contains
    what it needs, pinned.
    """

    name: str
    package: str
    file: str
    parts: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        """The name of its file in the bundle, without the suffix."""
        return f"{self.name}_runtime"


LITERT = Runtime("litert", "lesiontk.deploy.runner", "litert_runtime.py")
ONNX = Runtime("onnx", "lesiontk.deploy.runner", "onnx_runtime.py")
TRITON = Runtime("triton", "lesiontk.deploy.runner", "triton_runtime.py")
TENSORRT = Runtime(
    "tensorrt",
    "lesiontk.backends.tensorrt",
    "plan_cache.py",
    ("cuda_bindings.py", "dla_layers.py", "on_device.py", "plan_runner.py"),
)


@dataclass(frozen=True, slots=True)
class Contents:
    """A target's additions: keys of ``bundle.json``, facts of the artefact, part of README.md."""

    instructions: str
    bundle: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


class BundleTarget(ABC):
    """A kind of device. `engines` are the targets that it runs, the preferred one first.

    `alternatives` maps an engine to another one of the same model that the bundle then also
    contains: the device measures which one it keeps. `image` is the base of its container image;
    empty for a device without services.
    """

    engines: ClassVar[tuple[str, ...]]
    alternatives: ClassVar[Mapping[str, str]] = MappingProxyType({})
    python: str = "3.9"
    image: str = ""
    first_command: ClassVar[str] = "python {folder}/run.py self-test"

    def __init__(self, name: str) -> None:
        self.name = name

    def choose(self, available: Collection[str]) -> str:
        """Return the preferred one of the `available` engines.

        Raises `UsageError` if none of them runs there.
        """
        for engine in self.engines:
            if engine in available:
                return engine
        raise UsageError(
            f"{self.name} runs {', '.join(self.engines)}; received "
            f"{', '.join(available) or 'no engine'}. Make one with `lesiontk convert --to "
            f"{self.engines[0]}`."
        )

    @abstractmethod
    def runtimes(self, spec: EngineSpec) -> tuple[Runtime, ...]:
        """Return the runtimes of the engine; the device uses the first."""

    def place(self, file: str, spec: EngineSpec) -> str:
        """Return where the bundle has the engine `file`: a path in its folder."""
        return file

    def refuse_filters(self, spec: EngineSpec) -> None:
        """Raise `UsageError` if the engine's images need more than crop and resize."""
        if spec.preprocessing.enhance:
            raise UsageError(
                f"{spec.recipe} prepares images with {', '.join(spec.preprocessing.enhance)}; "
                f"expected crop and resize alone for {self.name}. Use --target linux-arm64, whose "
                "runner contains the filters, or a recipe without `data.enhance`."
            )

    def use_runtime(self, archives: Path) -> None:
        """Take the runtime from a folder. Raises `UsageError` if bundles do not contain one."""
        raise UsageError(
            f"received a runtime, {archives}; bundles for {self.name} do not contain one. Leave "
            "out `--runtime`, or use `--target web`."
        )

    @abstractmethod
    def add_files(self, folder: Path, engine: Path, spec: EngineSpec) -> Contents:
        """Check the engine in the folder, write the target's own files, and describe them."""

    def seal(self, folder: Path) -> None:  # noqa: B027 - a hook
        """Write what depends on all other files; the checksums cover it, too."""
