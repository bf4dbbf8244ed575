"""The supported Jetsons, as data with its source."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

from lesiontk.backends.tensorrt.on_device import FLAGS
from lesiontk.backends.tensorrt.versions import parse_version
from lesiontk.errors import UsageError, suggest
from lesiontk.files.strict_yaml import load_yaml


@dataclass(frozen=True, slots=True)
class JetsonTarget:
    """A device with its JetPack: possible TensorRT versions, Python, compute capability."""

    name: str
    device: str
    jetpack: str
    python: str
    tensorrt: tuple[str, ...]

    def __post_init__(self) -> None:
        for version in self.tensorrt:
            parse_version(version)


@cache
def read_targets() -> dict[str, JetsonTarget]:
    """Return name -> target."""
    folder = resources.files("lesiontk.backends.tensorrt")
    document = load_yaml(folder.joinpath("jetson_targets.yaml").read_text(encoding="utf-8"))
    return {
        name: JetsonTarget(
            name=name,
            device=entry["device"],
            jetpack=str(entry["jetpack"]),
            python=entry["python"],
            tensorrt=tuple(entry["tensorrt"]),
        )
        for name, entry in document.items()
    }


def find_target(name: str) -> JetsonTarget:
    """Return a target. Raises `UsageError` with the known names for another."""
    known = read_targets()
    if name not in known:
        raise UsageError(
            f"unknown target {name!r}; known are {', '.join(known)}.{suggest(name, known)}"
        )
    return known[name]


def write_trtexec(version: str, precision: str, model: str, shape: tuple[int, int, int]) -> str:
    """Return the ``trtexec`` command that builds and times the same engine.

    From TensorRT 10 on the network's types come from the graph; earlier versions need flags.
    """
    strong = parse_version(version) >= (10, 0)
    flags = [f"--{name.lower()}" for name in FLAGS[precision]]
    batch = "x".join(map(str, (1, *shape)))
    return " ".join(
        [
            "/usr/src/tensorrt/bin/trtexec",
            f"--onnx={model}",
            "--saveEngine=trtexec.plan",
            *(f"--{which}Shapes=image:{batch}" for which in ("min", "opt", "max")),
            "--memPoolSize=workspace:1024",
            *(["--stronglyTyped"] if strong else flags),
        ]
    )
