"""Augmentations: registered functions on a batch of images, stateless by seed.

Each maps float32 [N, H, W, 3] in 0..255, W at least H, and a seed int32 [2] to float32 [N, H, H, 3]
in 0..255. W exceeds H where the recipe keeps more of each picture than the network's square
(``data.training_aspect``). The seed depends on the step: a resumed epoch gets the same pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from lesiontk.registry import Registry
from lesiontk.system.frameworks import import_tensorflow

Augmentation = Callable[[Any, Any], Any]

AUGMENTATIONS: Registry[Augmentation] = Registry("augmentation")
AUGMENTATIONS.register("none", "lesiontk.data.augment:keep_images")
AUGMENTATIONS.register("flips", "lesiontk.data.augment:flip_images")
AUGMENTATIONS.register("dermoscopy", "lesiontk.data.augment:augment_dermoscopy")
AUGMENTATIONS.register("trivial_augment", "lesiontk.data.augment:augment_trivially")


def keep_images(images: Any, seed: Any) -> Any:
    """Return the centered squares of the images."""
    size, width = images.shape[1:3]
    left = (width - size) // 2
    return images[:, :, left : left + size]


def flip_images(images: Any, seed: Any) -> Any:
    """Return the centered squares, half of them flipped horizontally and half vertically."""
    tf = import_tensorflow()
    images = keep_images(images, seed)
    uniform = tf.random.stateless_uniform([2, tf.shape(images)[0], 1, 1, 1], seed)
    images = tf.where(uniform[0] < 0.5, tf.reverse(images, [2]), images)
    return tf.where(uniform[1] < 0.5, tf.reverse(images, [1]), images)


def augment_dermoscopy(images: Any, seed: Any) -> Any:
    """Return the images with the variation between two photographs of one lesion.

    A lesion has no upright position: any rotation and flip. Distance and angle of the dermatoscope:
    zoom 0.86 to 1.28, aspect 0.9 to 1.1, shift up to 6 %. Light and camera: gain, a gain for each
    channel (white balance), contrast, saturation. Hue changes little, because colour is a
    criterion of the class.
    """
    tf = import_tensorflow()
    unit = tf.random.stateless_uniform([12, tf.shape(images)[0]], seed)
    size = images.shape[1]
    images = _sample_square(
        images,
        angle=_between(unit[0], -math.pi, math.pi),
        zoom=tf.exp(_between(unit[1], -0.25, 0.15)),
        aspect=tf.exp(_between(unit[2], -0.1, 0.1)),
        mirror=unit[3] < 0.5,
        shift_x=_between(unit[4], -0.06, 0.06) * size,
        shift_y=_between(unit[5], -0.06, 0.06) * size,
    )
    images = _scale_channels(
        images,
        tf.exp(_between(tf.transpose(unit[6:9]), -0.08, 0.08)),
        tf.exp(_between(unit[9], -0.15, 0.15)),
    )
    images = _stretch_contrast(images, tf.exp(_between(unit[10], -0.2, 0.2)))
    images = _stretch_saturation(images, tf.exp(_between(unit[11], -0.2, 0.2)))
    return tf.clip_by_value(images, 0.0, 255.0)


def augment_trivially(images: Any, seed: Any) -> Any:
    """Return random resized crops with one more change of random strength for each image.

    After TrivialAugment (Müller & Hutter, arXiv:2103.10158), with the changes that keep a
    diagnosis: brightness, contrast, saturation, white balance, gamma, blur, sharpening, noise, a
    grey patch (cutout), or none. Before it any rotation and flip, and a crop of 0.3 to 1.3 of the
    square's area, aspect 0.8 to 1.25, anywhere around the center, mirrored at the borders.
    """
    tf = import_tensorflow()
    count, (size, width) = tf.shape(images)[0], images.shape[1:3]
    unit = tf.random.stateless_uniform([12, count], seed)
    zoom = tf.sqrt(_between(unit[0], 0.3, 1.3))
    # The crop stays inside the image, and the lesion, centered by the photographer, in the crop.
    room_x, room_y = (0.3 * tf.maximum(side - zoom * size, 0.0) for side in (width, size))
    images = _sample_square(
        images,
        angle=_between(unit[1], -math.pi, math.pi),
        zoom=zoom,
        aspect=tf.exp(_between(unit[2], -0.11, 0.11)),
        mirror=unit[3] < 0.5,
        shift_x=_between(unit[4], -1.0, 1.0) * room_x,
        shift_y=_between(unit[5], -1.0, 1.0) * room_y,
    )
    choice = tf.cast(unit[6] * 10, tf.int32)

    def strength(*numbers: int) -> Any:
        """-1 to 1 where one of these changes was drawn, otherwise 0, which changes nothing."""
        drawn = tf.reduce_any([choice == number for number in numbers], axis=0)
        return tf.where(drawn, _between(unit[7], -1.0, 1.0), 0.0)

    gains = tf.stack([strength(1) * 0.3 * _between(unit[row], -1.0, 1.0) for row in (8, 9, 10)], 1)
    images = _scale_channels(images, tf.exp(gains), tf.exp(0.4 * strength(2)))
    images = _stretch_contrast(images, tf.exp(0.6 * strength(3)))
    images = _stretch_saturation(images, tf.exp(0.6 * strength(4)))
    gamma = _per_image(tf.exp(0.5 * strength(5)))
    images = 255.0 * tf.pow(tf.clip_by_value(images, 0.0, 255.0) / 255.0, gamma)
    blurred = tf.nn.avg_pool2d(tf.nn.avg_pool2d(images, 3, 1, "SAME"), 3, 1, "SAME")
    softness = tf.abs(strength(6)) - tf.abs(strength(7))
    images += _per_image(softness) * (blurred - images)
    noise = tf.random.stateless_normal([count, size, size, 1], seed + tf.constant([0, 1 << 28]))
    images += _per_image(12.0 * strength(8)) * noise
    images = _erase_patch(images, 0.4 * size * tf.abs(strength(9)), unit[8:10] * size)
    return tf.clip_by_value(images, 0.0, 255.0)


def _between(unit: Any, low: float, high: float) -> Any:
    return low + (high - low) * unit


def _per_image(values: Any) -> Any:
    return values[:, None, None, None]


def _sample_square(
    images: Any, *, angle: Any, zoom: Any, aspect: Any, mirror: Any, shift_x: Any, shift_y: Any
) -> Any:
    """Return [N, S, S, 3]: the square at the center, moved by the shift in pixels, of `zoom` times
    its size, rotated and perhaps mirrored; outside, the picture is mirrored."""
    tf = import_tensorflow()
    size, width = images.shape[1:3]
    flip = tf.where(mirror, -1.0, 1.0)
    a, b = tf.cos(angle) * zoom * aspect * flip, -tf.sin(angle) * zoom / aspect
    c, d = tf.sin(angle) * zoom * aspect * flip, tf.cos(angle) * zoom / aspect
    middle = (size - 1) / 2
    x = (width - 1) / 2 - (a + b) * middle + shift_x
    y = middle - (c + d) * middle + shift_y
    zero = tf.zeros_like(a)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([a, b, x, c, d, y, zero, zero], axis=1),
        output_shape=[size, size],
        interpolation="BILINEAR",
        fill_mode="REFLECT",
        fill_value=0.0,
    )


def _scale_channels(images: Any, channel_gains: Any, gain: Any) -> Any:
    return images * channel_gains[:, None, None, :] * _per_image(gain)


def _stretch_contrast(images: Any, factor: Any) -> Any:
    mean = import_tensorflow().reduce_mean(images, [1, 2], keepdims=True)
    return mean + (images - mean) * _per_image(factor)


def _stretch_saturation(images: Any, factor: Any) -> Any:
    grey = import_tensorflow().reduce_mean(images, 3, keepdims=True)
    return grey + (images - grey) * _per_image(factor)


def _erase_patch(images: Any, side: Any, center: Any) -> Any:
    """Fill a square of `side` [N] pixels around `center` [2, N] with the image's mean color."""
    tf = import_tensorflow()
    pixel = tf.range(images.shape[1], dtype=tf.float32)
    near = [tf.abs(pixel - c[:, None]) < side[:, None] / 2 for c in tf.unstack(center)]
    patch = near[0][:, :, None, None] & near[1][:, None, :, None]
    return tf.where(patch, tf.reduce_mean(images, [1, 2], keepdims=True), images)
