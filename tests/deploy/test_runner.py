"""The files that a bundle carries: old enough Python, few packages, the toolkit's own pixels."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lesiontk.backends.tensorrt import on_device
from lesiontk.data import fit
from lesiontk.data.decode import decode_image
from lesiontk.data.enhance import ENHANCEMENTS
from lesiontk.deploy import runner

from ..data.sample_files import encode, encode_rgb, exif_of, make_rgb
from ..loose_modules import load_module

FOLDER = Path(str(runner.__file__)).parent
ENHANCE = sorted({Path(str(sys.modules[f.__module__].__file__)) for _, f in ENHANCEMENTS.items()})
FILES = [
    *(path for path in sorted(FOLDER.glob("*.py")) if path.name != "__init__.py"),
    Path(fit.__file__),
    Path(on_device.__file__),
    *ENHANCE,
]
PACKAGES = {
    "litert_runtime.py": {"numpy", "ai_edge_litert"},
    "onnx_runtime.py": {"numpy", "onnxruntime"},
    "on_device.py": {"numpy", "pycuda", "cuda"},
    "picture.py": {"numpy", "PIL", "fit"},
    "decision.py": {"numpy"},
    "run.py": {"numpy", "decision", "PIL", "picture"},  # the latter two when a picture is read
    "fit.py": {"numpy", "PIL"},
}
TYPES = {"Path | None"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_is_written_in_python_3_8(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    names = {
        node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
        for node in ast.walk(tree)
    }
    assert not names & {"removeprefix", "removesuffix", "pairwise", "batched"}
    calls = {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    assert not calls & {"strict", "slots", "kw_only"}  # of zip and dataclass, from 3.10
    with pytest.raises(SyntaxError):
        ast.parse("match a:\n    case 1: pass", feature_version=(3, 8))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_its_types_are_not_evaluated_where_3_8_knows_them_not(path: Path) -> None:
    """``dict[str, Any] | None`` in a signature is text, thanks to the import from __future__."""
    tree = ast.parse(path.read_text())
    first = next(node for node in tree.body if isinstance(node, ast.ImportFrom))
    assert (first.module, [name.name for name in first.names]) == ("__future__", ["annotations"])
    annotated = {
        id(part)
        for node in ast.walk(tree)
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if annotation is not None
        for part in ast.walk(annotation)
    }
    unions = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr)
        and id(node) not in annotated and not isinstance(node.left, ast.Call)
    ]  # fmt: skip
    assert not [text for text in unions if "None" in text]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_needs_few_packages_and_nothing_of_lesiontk(path: Path) -> None:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = str(node.module)
            if path in ENHANCE and module == "lesiontk.data.enhance.gradient":
                continue  # written anew in the bundle
            found.add(module.split(".")[0])
    allowed = PACKAGES.get(path.name, {"numpy", "cv2"})
    assert found - set(sys.stdlib_module_names) <= allowed


@pytest.fixture
def picture(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The runner's module, imported as a bundle does."""
    monkeypatch.setitem(sys.modules, "fit", fit)
    return load_module(FOLDER / "picture.py")


def _samples() -> dict[str, bytes]:
    rgb = make_rgb()
    grey = np.arange(24 * 40, dtype=np.uint32).reshape(24, 40) * 68 % 65536
    alpha = np.dstack([rgb, np.tile(np.arange(40, dtype=np.uint8) * 6, (24, 1))])
    return {
        **{form.lower(): encode_rgb(form) for form in ("JPEG", "PNG", "BMP", "TIFF", "WEBP")},
        **{f"turned {n}": encode_rgb("JPEG", exif=exif_of(n)) for n in range(2, 9)},
        "grey": encode(Image.fromarray(rgb[..., 0]), "PNG"),
        "deep grey": encode(Image.fromarray(grey.astype(np.uint16)), "PNG"),
        "deep grey tiff": encode(Image.fromarray(grey.astype(np.uint16)), "TIFF"),
        "transparent": encode(Image.fromarray(alpha), "PNG"),
        "palette": encode(Image.fromarray(rgb).convert("P"), "PNG"),
        "two colours": encode(Image.fromarray(rgb).convert("1"), "PNG"),
        "four colours": encode(Image.fromarray(rgb).convert("CMYK"), "JPEG"),
        "luma and chroma": encode_rgb("JPEG", progressive=True),
    }


@pytest.mark.parametrize(("name", "content"), _samples().items())
def test_it_decodes_as_the_toolkit_does(
    name: str, content: bytes, picture: Any, tmp_path: Path
) -> None:
    path = tmp_path / "sample"
    path.write_bytes(content)
    np.testing.assert_array_equal(picture.read_picture(path), decode_image(content, name="a"))


def test_what_is_no_picture_is_refused(picture: Any, tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    path.write_bytes(encode_rgb("JPEG")[:200])
    with pytest.raises(picture.PictureError, match=r"cut\.jpg: .*; expected a JPEG"):
        picture.read_picture(path)
    path.write_bytes(encode(Image.new("RGB", (4, 30)), "PNG"))
    with pytest.raises(picture.PictureError, match="expected at least 8 a side"):
        picture.read_picture(path)
