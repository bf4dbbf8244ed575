"""Decoding of image files to RGB pixels: bounded, thread-safe and silent.

Pillow's file classes are used directly: `Image.open` warns about large images, and warnings
cannot be silenced in one thread alone. Limits are checked on the header, before anything the size
of the image is allocated. No state of Pillow is changed; its own limit on pixels applies where
its TIFF and WebP readers enforce it. (libtiff writes a line to standard error about a broken
compressed TIFF; Python cannot prevent that.)

Bundles contain this file, so that toolkit and device accept the same images and get the same
bytes. It needs only NumPy and Pillow (9.1 or later) and runs on Python 3.8 or later.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import (
    BmpImagePlugin,
    Image,
    ImageChops,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from lesiontk.data.dicom_image import DicomError, is_dicom, read_dicom
from lesiontk.data.image_container import (
    FORMATS,
    Container,
    ContainerError,
    container_from_bytes,
    orientation_from_exif,
)

MAX_PIXELS = 100_000_000
MAX_BYTES = 200 * 2**20
MIN_SIDE = 8

_OPENERS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
}
_REMEDY = {
    "empty": "Fetch the file again.",
    "truncated": "Fetch or copy the file again; it is incomplete.",
    "corrupt": "Fetch the file again, or save it again with an image editor.",
    "not_an_image": "Check the content of the file, or remove it from the table.",
    "unsupported": "Convert the file to 8-bit RGB PNG or JPEG.",
    "too_large": "Scale the image down, or raise the limit if you trust its source.",
    "too_small": "Use the full-size image, not its thumbnail.",
}
# Exceptions of Pillow's readers on broken input, besides its decompression bomb error.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    OverflowError,
    NotImplementedError,
    struct.error,
    zlib.error,
)
_WHOLE = f"a complete {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file"


class PictureError(Exception):
    """An image that cannot be read; `name` is its name, `reason` one word for programs.

    Reasons here: empty, too_large, too_small, not_an_image, unsupported, truncated, corrupt.
    """

    exit_code = 2

    def __init__(self, message: str, name: str, reason: str) -> None:
        super().__init__(message)
        self.name = name
        self.reason = reason


def decode_picture(
    data: bytes,
    *,
    name: str,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    draft_size: int | None = None,
) -> Any:
    """Return the image in `data` as uint8 [H, W, 3] RGB, upright.

    JPEG, PNG, BMP, TIFF, WebP and, with pydicom, DICOM; of several frames or pages the first. The
    EXIF orientation is applied. Transparent pixels are blended with white, as on paper. 16-bit grey
    is scaled by 255/65535 and rounded. Four-channel JPEG is inverted if its Adobe marker says so.
    Colour profiles are ignored: pixels are taken for sRGB.

    With `draft_size`, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as neither side
    falls below `draft_size` pixels: faster, but not the same pixels, so not for evaluation.

    `name` is used in messages; an image suffix in it must match the content. Raises `PictureError`
    for anything but a complete image of at least 8 x 8 and at most `max_pixels` pixels in at most
    `max_bytes` bytes. Pillow does not report damage inside a JPEG's scan that leaves it decodable.
    """
    if not data:
        raise _image_error(name, "empty", "0 bytes", "an image")
    if len(data) > max_bytes:
        received = f"{len(data):,} bytes"
        raise _image_error(name, "too_large", received, f"at most {max_bytes:,} bytes")
    if is_dicom(data):
        try:
            found = read_dicom(data, max_pixels)
        except DicomError as error:
            expected = "an 8-bit photograph, uncompressed or as JPEG"
            raise _image_error(name, error.reason, str(error), expected) from error
        if not isinstance(found, bytes):
            if min(found.shape[:2]) < MIN_SIDE:
                received = f"{found.shape[1]:,} x {found.shape[0]:,} pixels"
                expected = f"at least {MIN_SIDE} pixels a side"
                raise _image_error(name, "too_small", received, expected)
            return found
        data = found
    try:
        container = container_from_bytes(data)
    except ContainerError as error:
        raise _image_error(name, error.reason, str(error), _WHOLE) from error
    image = _load_picture(container, name, max_pixels, draft_size)
    exif = image.info.get("exif") if container.format == "WEBP" else None
    orientation = orientation_from_exif(exif) if exif else container.orientation
    try:
        return _upright(_rgb_from_picture(image, container), orientation)
    except _UnsupportedError as error:
        received = f"a {container.format} with {error}"
        raise _image_error(name, "unsupported", received, "8-bit colour or grey") from error


class _UnsupportedError(Exception):
    """Pixels of a kind without a defined conversion to 8-bit RGB."""


def _image_error(name: str, reason: str, received: str, expected: str) -> PictureError:
    message = f"{name}: received {received}; expected {expected}. {_REMEDY[reason]}"
    return PictureError(message, name, reason)


def _load_picture(
    container: Container, name: str, max_pixels: int, draft_size: int | None
) -> Image.Image:
    """Return the image, opened and decoded after a check of the size in its header."""
    if container.size is not None:
        _check_size(name, container, container.size, max_pixels)
    try:
        picture = _OPENERS[container.format](io.BytesIO(container.data))
        _check_size(name, container, picture.size, max_pixels)
        if draft_size is not None and container.format == "JPEG":
            picture.draft(picture.mode, (draft_size, draft_size))
        picture.load()
    except Image.DecompressionBombError as error:
        expected = f"at most {max_pixels:,} pixels"
        raise _image_error(name, "too_large", str(error), expected) from error
    except _BROKEN as error:
        received = f"a {container.format} file that cannot be decoded ({error})"
        raise _image_error(name, _reason_from_pillow(error), received, _WHOLE) from error
    return picture


def _check_size(name: str, container: Container, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    limit = max_pixels
    if container.format in ("TIFF", "WEBP") and Image.MAX_IMAGE_PIXELS is not None:
        limit = min(limit, Image.MAX_IMAGE_PIXELS)
    received = f"{width:,} x {height:,} pixels"
    if width * height > limit:
        raise _image_error(name, "too_large", received, f"at most {limit:,} pixels")
    if min(width, height) < MIN_SIDE:
        raise _image_error(name, "too_small", received, f"at least {MIN_SIDE} pixels a side")


def _reason_from_pillow(error: BaseException) -> str:
    text = str(error).lower()
    if "truncated" in text or "not enough" in text or isinstance(error, EOFError):
        return "truncated"
    if any(word in text for word in ("unsupported", "cannot handle", "unknown", "not supported")):
        return "unsupported"
    return "corrupt"


def _rgb_from_picture(image: Image.Image, container: Container) -> Any:
    """Convert decoded pixels of any mode to uint8 [H, W, 3]."""
    if container.format == "TIFF":
        _check_tiff_samples(image)
    if image.mode in ("I", "I;16", "I;16L", "I;16B", "I;16N"):
        return _rgb_from_deep_grey(image, container)
    if image.mode == "CMYK" and container.format == "JPEG" and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow assumes Adobe's convention for every file
    if _is_transparent(image):
        image = image.convert("RGBA")
        page = Image.new("RGB", image.size, (255, 255, 255))
        page.paste(image, mask=image.getchannel("A"))
        image = page
    if image.mode not in ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr"):
        raise _UnsupportedError(f"pixels of mode {image.mode}")
    rgb = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    if container.transparent:
        rgb[(rgb == np.array(container.transparent)).all(axis=2)] = 255
    return rgb


def _is_transparent(image: Image.Image) -> bool:
    """Return whether any pixel may be transparent; Pillow 10.1 has a property for it."""
    palette = image.palette if image.mode == "P" else None
    return (
        image.mode in ("LA", "La", "RGBA", "RGBa", "PA")
        or "transparency" in image.info
        or (palette is not None and palette.mode.endswith("A"))
    )


def _rgb_from_deep_grey(image: Image.Image, container: Container) -> Any:
    grey = np.array(image).astype(np.int32)
    if container.format not in ("PNG", "TIFF"):
        raise _UnsupportedError(f"pixels of mode {image.mode}")
    levels = 65535
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        levels = (1 << image.tag_v2.get(258, (16,))[0]) - 1
    scaled = ((grey * 255 + levels // 2) // levels).astype(np.uint8)
    if container.transparent:
        scaled[grey == container.transparent[0]] = 255
    return np.repeat(scaled[:, :, np.newaxis], 3, axis=2)


def _check_tiff_samples(image: Image.Image) -> None:
    """Raise for sample layouts that Pillow opens without scaling their brightness."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    bits = image.tag_v2.get(258, (1,))
    signed = any(kind != 1 for kind in image.tag_v2.get(339, (1,)))
    inverted = image.tag_v2.get(262, 0) == 0
    if signed or max(bits) > 16 or (inverted and max(bits) > 8):
        raise _UnsupportedError(f"{max(bits)}-bit samples that are signed, inverted or too deep")


def _upright(rgb: Any, orientation: int) -> Any:
    """Undo the camera's rotation (EXIF 2.32, tag 0x0112)."""
    if orientation >= 5:
        rgb = rgb.swapaxes(0, 1)
    vertical = -1 if orientation in (3, 4, 7, 8) else 1
    horizontal = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(rgb[::vertical, ::horizontal])
