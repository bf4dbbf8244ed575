"""The page's own files, and the list by which its service worker verifies all of them."""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

from lesiontk.files.hashing import hash_file

WORKER, LIST = "service-worker.js", "files.js"
SERVED = (
    ".bin", ".css", ".f32", ".html", ".js", ".json", ".png", ".tflite", ".u8", ".wasm",
    ".webmanifest", ".zlib",
)  # fmt: skip
"""Suffixes of the files that a browser asks for. A bundle contains others for Python and people."""
ICON_SIZES = (192, 512)


def write_board_page(folder: Path) -> None:
    """Write the folder ``web`` of a bundle whose runner serves the page and does the inference."""
    (folder / "web").mkdir()
    write_page(folder / "web")
    shutil.copyfile(folder / "bundle.json", folder / "web" / "bundle.json")


def write_page(folder: Path) -> None:
    """Write the page and its icons into `folder`."""
    for source in resources.files(__package__).joinpath("page").iterdir():
        (folder / source.name).write_bytes(source.read_bytes())
    for size in ICON_SIZES:
        draw_icon(size).save(folder / f"icon-{size}.png", optimize=True)


def write_list(folder: Path) -> None:
    """Write ``files.js``: name -> SHA-256 of each file that a browser asks for.

    `id` is the hash of the list. With another one browsers install the bundle anew.
    """
    files = {
        path.relative_to(folder).as_posix(): hash_file(path)
        for path in sorted(folder.rglob("*"))
        if path.suffix in SERVED and path.name not in (WORKER, LIST)
    }
    text = json.dumps(files, indent=1)
    document = json.dumps({"id": hashlib.sha256(text.encode()).hexdigest(), "files": files})
    (folder / LIST).write_text(f"self.BUNDLE = {document};\n", encoding="utf-8")


def draw_icon(size: int) -> Image.Image:
    """Return the app's icon, `size` pixels a side: a lesion inside a dermatoscope's ring."""
    scale = 4  # drawn larger, then reduced: smooth edges
    y, x = np.mgrid[: size * scale, : size * scale] / (size * scale / 2) - 1
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    picture = np.full((*radius.shape, 3), (11, 102, 115), np.uint8)
    picture[radius < 0.66] = (244, 246, 247)
    picture[radius < 0.58] = (226, 196, 174)
    border = 0.3 + 0.03 * np.sin(3 * angle) + 0.02 * np.cos(5 * angle)
    picture[radius < border] = (128, 84, 62)
    picture[np.hypot(x + 0.07, y + 0.05) < border * 0.55] = (92, 56, 42)
    return Image.fromarray(picture).resize((size, size), Image.Resampling.BOX)
