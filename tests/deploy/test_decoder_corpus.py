"""Toolkit and device accept the same pictures and give the same bytes, over formats and headers."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lesiontk.data.decode import ImageError, decode_image
from lesiontk.deploy.runner_files import write_runner
from lesiontk.deploy.target import LITERT
from tests.data.sample_files import encode, encode_rgb, exif_of, make_rgb

SEED = 20
CUTS, FLIPS = 3, 12
"""Truncations and files with one changed byte, of each picture."""

DEVICE = """
import hashlib, json, sys
from pathlib import Path
sys.modules["lesiontk"] = None
sys.path.insert(0, sys.argv[1])
import picture
said = {}
for path in sorted(Path(sys.argv[2]).iterdir()):
    try:
        pixels = picture.read_picture(path)
        said[path.name] = [list(pixels.shape), hashlib.sha256(pixels.tobytes()).hexdigest()]
    except picture.PictureError as error:
        said[path.name] = error.reason
json.dump(said, sys.stdout)
"""


def make_tiff(samples: bytes, tags: dict[int, int]) -> bytes:
    """Return a grey TIFF of 40 x 24 pixels with its samples as they are; `tags` are 16-bit ones."""
    entries = {256: 40, 257: 24, 258: 8, 259: 1, 262: 1, 277: 1, 278: 24, **tags}
    count = len(entries) + 2
    start = 8 + 2 + 12 * count + 4
    directory = b"".join(
        struct.pack("<HHLL", tag, 4 if tag in (273, 279) else 3, 1, value)
        for tag, value in sorted({**entries, 273: start, 279: len(samples)}.items())
    )
    return b"II*\0" + struct.pack("<LH", 8, count) + directory + bytes(4) + samples


def pack_12_bit(values: np.ndarray) -> bytes:
    high, low = values.reshape(-1, 2).T
    return np.stack([high >> 4, (high & 15) << 4 | low >> 8, low & 255], 1).astype("u1").tobytes()


def make_corpus() -> dict[str, bytes]:
    rgb = make_rgb()
    image, grey = Image.fromarray(rgb), Image.fromarray(rgb[..., 0])
    ramp = np.arange(24 * 40, dtype=np.uint32).reshape(24, 40)
    deep = Image.fromarray((ramp * 68 % 65536).astype(np.uint16))
    twelve = (ramp * 4 % 4096).astype(np.uint16)
    alpha = Image.fromarray(np.dstack([rgb, np.tile(np.arange(40, dtype=np.uint8) * 6, (24, 1))]))
    cmyk = encode(image.convert("CMYK"), "JPEG")
    adobe = cmyk.index(b"\xff\xee")
    tags = {262: 0}
    return {
        **{form.lower(): encode_rgb(form) for form in ("JPEG", "PNG", "BMP", "TIFF", "WEBP")},
        **{f"jpeg_turned_{n}": encode_rgb("JPEG", exif=exif_of(n)) for n in range(2, 9)},
        **{f"png_turned_{n}": encode_rgb("PNG", exif=exif_of(n)) for n in (3, 6)},
        **{f"tiff_turned_{n}": encode_rgb("TIFF", exif=exif_of(n)) for n in (3, 6)},
        **{f"tiff_{c}": encode_rgb("TIFF", compression=f"tiff_{c}") for c in ("lzw", "deflate")},
        **{f"webp_{n}": encode(alpha, "WEBP", lossless=bool(n)) for n in (0, 1)},
        "jpeg_progressive": encode_rgb("JPEG", progressive=True),
        "jpeg_grey": encode(grey, "JPEG"),
        "jpeg_cmyk": cmyk,
        "jpeg_cmyk_without_adobe": cmyk[:adobe] + cmyk[adobe + 2 + cmyk[adobe + 3] :],
        "png_grey": encode(grey, "PNG"),
        "png_deep": encode(deep, "PNG"),
        "png_alpha": encode(alpha, "PNG"),
        "png_grey_alpha": encode(alpha.convert("LA"), "PNG"),
        "png_palette": encode(image.convert("P"), "PNG"),
        "png_palette_clear": encode(image.quantize(8), "PNG", transparency=3),
        "png_colour_clear": encode(image, "PNG", transparency=(6, 9, 1)),
        "png_two": encode(image.convert("1"), "PNG"),
        "bmp_palette": encode(image.convert("P"), "BMP"),
        "tiff_deep": encode(deep, "TIFF"),
        "tiff_12_bit": make_tiff(pack_12_bit(twelve), {258: 12}),
        "tiff_16_bit": make_tiff(twelve.tobytes(), {258: 16}),
        "tiff_white_is_zero": make_tiff(rgb[..., 0].tobytes(), tags),
        "tiff_white_is_zero_deep": make_tiff(twelve.tobytes(), {**tags, 258: 16}),
        "tiff_signed": make_tiff(twelve.astype(np.int16).tobytes(), {258: 16, 339: 2}),
        "tiff_float": encode(Image.fromarray(ramp.astype(np.float32) / 960), "TIFF"),
        "tiff_32_bit": encode(Image.fromarray(ramp.astype(np.int32) * 100), "TIFF"),
        "tiff_lab": encode(image.convert("LAB"), "TIFF"),
        "tiff_cmyk": encode(image.convert("CMYK"), "TIFF"),
        "tiff_alpha": encode(alpha, "TIFF"),
        "tiff_two": encode(image.convert("1"), "TIFF"),
        "tiff_pages": encode_rgb("TIFF", save_all=True, append_images=[grey.copy()]),
        "gif": encode(image, "GIF"),
        "gif_frames": encode(image, "GIF", save_all=True, append_images=[grey.copy()]),
        "ppm": encode(image, "PPM"),
        "ico": encode(image, "ICO"),
        "jpeg_2000": encode(image, "JPEG2000"),
        "empty": b"",
        "text": b"no picture",
        "thumbnail": encode(Image.new("RGB", (4, 30)), "PNG"),
        "bomb": make_tiff(b"", {256: 65535, 257: 65535}),
    }


def damage(corpus: dict[str, bytes]) -> dict[str, bytes]:
    """Return the pictures, each also cut off and with single bytes changed."""
    random = np.random.default_rng(SEED)
    made = dict(corpus)
    for name, content in corpus.items():
        if len(content) < 20:
            continue
        for number, at in enumerate(random.integers(1, len(content), CUTS)):
            made[f"{name}-cut-{number}"] = content[:at]
        # Headers lie in front: half of the changes there.
        places = [*random.integers(0, 200, FLIPS // 2), *random.integers(0, len(content), FLIPS)]
        for number, place in enumerate(places[:FLIPS]):
            changed = bytearray(content)
            changed[place % len(content)] ^= 1 << int(random.integers(8))
            made[f"{name}-flip-{number}"] = bytes(changed)
    return made


def ask_toolkit(content: bytes, name: str) -> object:
    try:
        pixels = decode_image(content, name=name)
    except ImageError as error:
        return error.reason
    return [list(pixels.shape), hashlib.sha256(pixels.tobytes()).hexdigest()]


@pytest.fixture(scope="module")
def corpus() -> dict[str, bytes]:
    return make_corpus()


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runner")
    write_runner(folder, (LITERT,), ())
    return folder


def ask_device(runner: Path, pictures: Path) -> dict[str, object]:
    """Return what a bundle's own decoder makes of each file, in a process without lesiontk."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", DEVICE, str(runner), str(pictures)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    said: dict[str, object] = json.loads(done.stdout)
    return said


def test_toolkit_and_device_see_the_same(
    corpus: dict[str, bytes], runner: Path, tmp_path: Path
) -> None:
    pictures = damage(corpus)
    for name, content in pictures.items():
        (tmp_path / name).write_bytes(content)
    mine = {name: ask_toolkit(content, name) for name, content in sorted(pictures.items())}
    assert ask_device(runner, tmp_path) == mine
    refused = {name for name in corpus if isinstance(mine[name], str)}
    assert refused == {
        "tiff_white_is_zero_deep", "tiff_signed", "tiff_float", "tiff_32_bit", "tiff_lab", "gif",
        "gif_frames", "ppm", "ico", "jpeg_2000", "empty", "text", "thumbnail", "bomb",
    }  # fmt: skip
    damaged = [said for name, said in mine.items() if name not in corpus]
    assert sum(isinstance(said, str) for said in damaged) > 100
    assert sum(isinstance(said, list) for said in damaged) > 100


def test_twelve_bits_are_scaled_to_eight(corpus: dict[str, bytes]) -> None:
    twelve = np.arange(24 * 40).reshape(24, 40) * 4 % 4096
    decoded = decode_image(corpus["tiff_12_bit"], name="a")
    np.testing.assert_array_equal(decoded[..., 0], np.floor(twelve * 255 / 4095 + 0.5))


def test_white_is_zero_is_turned(corpus: dict[str, bytes]) -> None:
    decoded = decode_image(corpus["tiff_white_is_zero"], name="a")
    np.testing.assert_array_equal(decoded[..., 0], 255 - make_rgb()[..., 0])


def test_what_is_no_regular_file_is_not_opened_on_the_device(runner: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert set(ask_device(runner, tmp_path).values()) == {"unreadable"}
