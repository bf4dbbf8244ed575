"""The house: imports lead downward only, modules form no circle, the root stays small."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "toolkit" / "lesiontk"
FLOORS = (
    ("__main__",),
    ("cli",),
    ("api",),
    ("workflow",),
    ("stages",),
    ("deploy",),
    ("report",),
    ("search",),
    ("compress",),
    ("bench",),
    ("backends",),
    ("train",),
    ("evaluate",),
    ("calibration",),
    ("explain",),
    ("models",),
    ("data",),
    ("store", "recipe"),
    ("technique",),
    ("stage",),
    ("records",),
    ("tracking",),
    ("system", "files"),
    ("registry", "progress", "document"),
    ("errors",),
)
"""From top to bottom. A room is a folder or a module of the package; it imports lower floors only.

What is above `stages` and what is below it never meet in a file: the libraries know neither the
store nor the stages.
"""
LIBRARIES = (
    "deploy", "report", "search", "compress", "bench", "backends", "train", "evaluate",
    "calibration", "explain", "models", "data",
)  # fmt: skip

KERAS_ADAPTERS = (
    "compress.activation_splitting", "compress.batchnorm_folding", "compress.block_importance",
    "compress.channel_statistics",
    "compress.keras_layers", "compress.quantization_aware",
)  # fmt: skip
"""The modules of the mathematics that hold a Keras model in their hands."""
MATHEMATICS = ("compress", "calibration", "evaluate")
FRAMEWORKS = {"tensorflow", "tf_keras", "keras", "tensorflow_model_optimization", "onnxruntime"}


def modules() -> dict[str, Path]:
    """Return dotted name within the package -> file; a folder is named for its `__init__`."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path
    return found


MODULES = modules()


def imports_of(name: str, *, at_import: bool = False) -> Iterator[str]:
    """Yield the modules of the package that a module imports, also inside functions.

    With `at_import` only those that are imported when the module is.
    """
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    for node in tree.body if at_import else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "lesiontk":
            base = (node.module or "").partition(".")[2]
            for alias in node.names:
                inner = f"{base}.{alias.name}".strip(".")
                yield inner if inner in MODULES else base
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("lesiontk."):
                    yield alias.name.partition(".")[2]


def room_of(name: str) -> str:
    return name.partition(".")[0]


FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def test_every_room_has_a_floor() -> None:
    assert {room_of(name) for name in MODULES if name} == set(FLOOR)


@pytest.mark.parametrize("room", sorted(FLOOR))
def test_imports_lead_downward(room: str) -> None:
    upward = {
        f"{name} -> {other}"
        for name in MODULES
        if room_of(name) == room
        for other in imports_of(name)
        if other and room_of(other) != room and FLOOR[room_of(other)] <= FLOOR[room]
    }
    assert not upward


@pytest.mark.parametrize("library", LIBRARIES)
def test_libraries_know_no_store_and_no_stage(library: str) -> None:
    known = {
        f"{name} -> {other}"
        for name in MODULES
        if room_of(name) == library
        for other in imports_of(name)
        if room_of(other) in ("store", "stages", "workflow", "api", "cli")
    }
    assert not known


def find_circle(edges: dict[str, set[str]]) -> list[str]:
    """Return the modules of one circle of imports, or none."""
    done: set[str] = set()
    path: list[str] = []

    def visit(name: str) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        path.append(name)
        for other in sorted(edges.get(name, ())):
            circle = visit(other)
            if circle:
                return circle
        path.pop()
        done.add(name)
        return []

    for name in sorted(edges):
        circle = visit(name)
        if circle:
            return circle
    return []


def test_modules_form_no_circle() -> None:
    assert not find_circle(
        {n: {o for o in imports_of(n, at_import=True) if o != n} for n in MODULES if n}
    )


def test_a_circle_would_be_found() -> None:
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert not find_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()})


def test_the_root_stays_small() -> None:
    root = sorted(name for name, path in MODULES.items() if path.parent == PACKAGE)
    assert 6 <= len(root) <= 9, root


def test_no_module_imports_a_test_module() -> None:
    """What tests share is in a module of its own, or in a conftest."""
    for path in Path(__file__).parent.rglob("*.py"):
        imported = {
            part
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom)
            for part in [*str(node.module).split("."), *(alias.name for alias in node.names)]
        }
        assert not {name for name in imported if name.startswith("test_")}, path.name


def packages_of(name: str) -> set[str]:
    """Return the packages and the modules of our own that a module imports, also in functions."""
    found = set(imports_of(name))
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def test_mathematics_imports_no_framework() -> None:
    forbidden = {*FRAMEWORKS, "system.frameworks"}
    assert not {
        f"{name} -> {other}"
        for name in MODULES
        if room_of(name) in MATHEMATICS and name not in KERAS_ADAPTERS
        for other in packages_of(name) & forbidden
    }


@pytest.mark.parametrize("adapter", KERAS_ADAPTERS)
def test_every_adapter_uses_keras(adapter: str) -> None:
    assert "system.frameworks" in packages_of(adapter)


def test_mathematics_is_imported_without_a_framework() -> None:
    names = [n for n in MODULES if room_of(n) in MATHEMATICS and n not in KERAS_ADAPTERS]
    code = "\n".join(
        [f"import lesiontk.{name}" for name in names if name]
        + [f"import sys; print(sorted({FRAMEWORKS!r} & set(sys.modules)))"]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
