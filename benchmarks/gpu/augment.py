"""The augmentations of `lesiontk.data.augment` in PyTorch, as functions of uniform numbers.

Each maps float [N, 3, S, W] in 0..255, W at least S, and its `Draws` to float [N, 3, S, S] in
0..255. With the numbers that TensorFlow draws the pixels are those of lesiontk.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from lesiontk.errors import UsageError, suggest


@dataclass(frozen=True)
class Draws:
    """Random numbers for N images: uniform [12, N] in 0..1, and normal noise [N, 1, S, S]."""

    unit: Tensor
    noise: Tensor


def draw(count: int, size: int, device: torch.device) -> Draws:
    """Return the numbers for a batch, of PyTorch's generator for the device."""
    return Draws(
        torch.rand(12, count, device=device), torch.randn(count, 1, size, size, device=device)
    )


def find_augmentation(name: str) -> Callable[[Tensor, Draws], Tensor]:
    """Return a recipe's ``train.augment``. Raises `UsageError` for others."""
    if name not in AUGMENTATIONS:
        raise UsageError(
            f"augmentation {name!r} has no version in PyTorch; expected one of "
            f"{', '.join(AUGMENTATIONS)}.{suggest(name, AUGMENTATIONS)}"
        )
    return AUGMENTATIONS[name]


def keep_images(images: Tensor, draws: Draws) -> Tensor:
    size, width = images.shape[2:]
    left = (width - size) // 2
    return images[..., left : left + size]


def flip_images(images: Tensor, draws: Draws) -> Tensor:
    images = keep_images(images, draws)
    images = torch.where(per_image(draws.unit[0] < 0.5), images.flip(3), images)
    return torch.where(per_image(draws.unit[1] < 0.5), images.flip(2), images)


def augment_dermoscopy(images: Tensor, draws: Draws) -> Tensor:
    unit, size = draws.unit, images.shape[2]
    images = sample_square(
        images,
        angle=between(unit[0], -math.pi, math.pi),
        zoom=torch.exp(between(unit[1], -0.25, 0.15)),
        aspect=torch.exp(between(unit[2], -0.1, 0.1)),
        mirror=unit[3] < 0.5,
        shift_x=between(unit[4], -0.06, 0.06) * size,
        shift_y=between(unit[5], -0.06, 0.06) * size,
    )
    gains = torch.exp(between(unit[6:9].T, -0.08, 0.08))
    images = scale_channels(images, gains, torch.exp(between(unit[9], -0.15, 0.15)))
    images = stretch_contrast(images, torch.exp(between(unit[10], -0.2, 0.2)))
    images = stretch_saturation(images, torch.exp(between(unit[11], -0.2, 0.2)))
    return images.clamp(0, 255)


def augment_trivially(images: Tensor, draws: Draws) -> Tensor:
    unit, (size, width) = draws.unit, images.shape[2:]
    zoom = torch.sqrt(between(unit[0], 0.3, 1.3))
    room_x, room_y = (0.3 * (side - zoom * size).clamp_min(0) for side in (width, size))
    images = sample_square(
        images,
        angle=between(unit[1], -math.pi, math.pi),
        zoom=zoom,
        aspect=torch.exp(between(unit[2], -0.11, 0.11)),
        mirror=unit[3] < 0.5,
        shift_x=between(unit[4], -1, 1) * room_x,
        shift_y=between(unit[5], -1, 1) * room_y,
    )
    choice = (unit[6] * 10).int()

    def strength(number: int) -> Tensor:
        """-1 to 1 where this change was drawn, otherwise 0, which changes nothing."""
        return torch.where(choice == number, between(unit[7], -1, 1), 0.0)

    gains = 0.3 * strength(1)[:, None] * between(unit[8:11].T, -1, 1)
    images = scale_channels(images, torch.exp(gains), torch.exp(0.4 * strength(2)))
    images = stretch_contrast(images, torch.exp(0.6 * strength(3)))
    images = stretch_saturation(images, torch.exp(0.6 * strength(4)))
    images = 255 * (images.clamp(0, 255) / 255) ** per_image(torch.exp(0.5 * strength(5)))
    blurred = blur(blur(images))
    softness = strength(6).abs() - strength(7).abs()
    images = images + per_image(softness) * (blurred - images)
    images = images + per_image(12 * strength(8)) * draws.noise
    images = erase_patch(images, 0.4 * size * strength(9).abs(), unit[8:10] * size)
    return images.clamp(0, 255)


AUGMENTATIONS = {
    "none": keep_images,
    "flips": flip_images,
    "dermoscopy": augment_dermoscopy,
    "trivial_augment": augment_trivially,
}


def between(unit: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * unit


def per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def sample_square(
    images: Tensor,
    *,
    angle: Tensor,
    zoom: Tensor,
    aspect: Tensor,
    mirror: Tensor,
    shift_x: Tensor,
    shift_y: Tensor,
) -> Tensor:
    """Return [N, 3, S, S]: the square at the center, moved by the shift in pixels, of `zoom` times
    its size, rotated and perhaps mirrored; outside, the picture is mirrored."""
    size, width = images.shape[2:]
    flip = torch.where(mirror, -1.0, 1.0)
    a, b = torch.cos(angle) * zoom * aspect * flip, -torch.sin(angle) * zoom / aspect
    c, d = torch.sin(angle) * zoom * aspect * flip, torch.cos(angle) * zoom / aspect
    pixel = torch.arange(size, device=images.device) - (size - 1) / 2
    column, row = pixel[None, None, :], pixel[None, :, None]
    a, b, c, d, shift_x, shift_y = (v[:, None, None] for v in (a, b, c, d, shift_x, shift_y))
    x = (width - 1) / 2 + shift_x + a * column + b * row
    y = (size - 1) / 2 + shift_y + c * column + d * row
    # From the numbers of pixels to -1..1, the outer edges of the first and last one.
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / size - 1], 3)
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def scale_channels(images: Tensor, channel_gains: Tensor, gain: Tensor) -> Tensor:
    return images * channel_gains[:, :, None, None] * per_image(gain)


def stretch_contrast(images: Tensor, factor: Tensor) -> Tensor:
    mean = images.mean((2, 3), keepdim=True)
    return mean + (images - mean) * per_image(factor)


def stretch_saturation(images: Tensor, factor: Tensor) -> Tensor:
    gray = images.mean(1, keepdim=True)
    return gray + (images - gray) * per_image(factor)


def blur(images: Tensor) -> Tensor:
    return functional.avg_pool2d(images, 3, 1, padding=1, count_include_pad=False)


def erase_patch(images: Tensor, side: Tensor, center: Tensor) -> Tensor:
    """Fill a square of `side` [N] pixels around `center` [2, N] with the image's mean color."""
    pixel = torch.arange(images.shape[2], device=images.device)
    rows, columns = ((pixel - c[:, None]).abs() < side[:, None] / 2 for c in center)
    patch = (rows[:, :, None] & columns[:, None, :])[:, None]
    return torch.where(patch, images.mean((2, 3), keepdim=True), images)


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """Return the images [N, 3, H, W] in another size, smoothed where it is smaller."""
    if tuple(images.shape[2:]) == (height, width):
        return images
    return functional.interpolate(images, (height, width), mode="bilinear", antialias=True)
