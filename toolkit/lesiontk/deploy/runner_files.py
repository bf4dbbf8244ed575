"""The runner in a bundle: the toolkit's own files, which import each other by their short names."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from lesiontk.data.enhance import ENHANCEMENTS
from lesiontk.deploy.target import Runtime

RUNNER = "lesiontk.deploy.runner"
PREPROCESSING_FILES = ("crop.py", "picture_decoder.py", "image_container.py", "dicom_image.py")
"""The toolkit's own decoding and preprocessing."""
SHORT_NAMES = {
    "lesiontk.data.enhance.": "from enhance.",
    "lesiontk.data.": "from ",
    "lesiontk.evaluate.": "from ",
    "lesiontk.backends.onnx.": "from ",
    "lesiontk.backends.tensorrt.": "from ",
    "lesiontk.deploy.runner.": "from ",
    "lesiontk.files.": "from ",
    "lesiontk.deploy.runner import ": "import ",
}
"""How a module is imported in the bundle, after the ``from`` of the toolkit."""
REQUIREMENTS_PACKAGE = "lesiontk.deploy.requirements"


def write_runner(
    folder: Path, runtimes: Iterable[Runtime], enhance: Iterable[str]
) -> list[tuple[str, str]]:
    """Copy the bundle's runner, and return (module, function) of each filter."""
    for name in list_runner_files():
        _copy(RUNNER, name, folder / name)
    for name in PREPROCESSING_FILES:
        _copy("lesiontk.data", name, folder / name)
    _copy("lesiontk.evaluate", "input_checks.py", folder / "input_checks.py")
    _copy("lesiontk.files", "whole_files.py", folder / "whole_files.py")
    _copy("lesiontk.backends.onnx", "int8_kernels.py", folder / "int8_kernels.py")
    for runtime in runtimes:
        _copy(runtime.package, runtime.file, folder / f"{runtime.module}.py")
        for name in runtime.parts:
            _copy(runtime.package, name, folder / name)
    functions = [ENHANCEMENTS.get(name) for name in enhance]
    if functions:
        (folder / "enhance").mkdir()
        (folder / "enhance" / "__init__.py").touch()
        modules = {function.__module__.rpartition(".")[2] for function in functions}
        for module in sorted({*modules, "gradient"}):
            _copy("lesiontk.data.enhance", f"{module}.py", folder / "enhance" / f"{module}.py")
    return [(f.__module__.rpartition(".")[2], f.__name__) for f in functions]


def read_requirements(runtime: Runtime, *, filters: bool) -> str:
    """Return the pinned requirements of a runtime, with hashes; of `filters` OpenCV, too."""
    names = [runtime.name, *(["filters"] if filters else [])]
    texts = (resources.files(REQUIREMENTS_PACKAGE).joinpath(f"{name}.txt") for name in names)
    return "".join(text.read_text(encoding="utf-8") for text in texts)


def list_runner_files() -> list[str]:
    """Return the names of the runner's files, without the runtimes, and of its licence."""
    names = (entry.name for entry in resources.files(RUNNER).iterdir())
    files = (name for name in names if name == "LICENSE" or name.endswith(".py"))
    return sorted(n for n in files if n != "__init__.py" and not n.endswith("_runtime.py"))


def _copy(package: str, name: str, to: Path) -> None:
    text = resources.files(package).joinpath(name).read_text(encoding="utf-8")
    for package, short in SHORT_NAMES.items():
        text = text.replace(f"from {package}", short)
    to.write_text(text, encoding="utf-8")
