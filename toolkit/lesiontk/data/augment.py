"""Augmentations: registered functions on a batch of images, stateless by seed.

Each maps float32 [N, S, S, 3] in 0..255 and a seed int32 [2] to the same shape and range. The seed
depends on the step, so a resumed epoch gets the same pixels.
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


def keep_images(images: Any, seed: Any) -> Any:
    """Return the images unchanged."""
    return images


def flip_images(images: Any, seed: Any) -> Any:
    """Return the images, half of them flipped horizontally and half vertically."""
    tf = import_tensorflow()
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
    count, size = tf.shape(images)[0], images.shape[1]
    unit = tf.random.stateless_uniform([12, count], seed)

    def between(row: int, low: float, high: float) -> Any:
        return low + (high - low) * unit[row]

    angle = between(0, -math.pi, math.pi)
    zoom = tf.exp(between(1, -0.25, 0.15))
    aspect = tf.exp(between(2, -0.1, 0.1))
    mirror = tf.where(unit[3] < 0.5, -1.0, 1.0)
    a, b = tf.cos(angle) * zoom * aspect * mirror, -tf.sin(angle) * zoom / aspect
    c, d = tf.sin(angle) * zoom * aspect * mirror, tf.cos(angle) * zoom / aspect
    centre = (size - 1) / 2
    shift_x, shift_y = between(4, -0.06, 0.06) * size, between(5, -0.06, 0.06) * size
    zero = tf.zeros([count])
    transforms = tf.stack(
        [
            a,
            b,
            centre - (a + b) * centre + shift_x,
            c,
            d,
            centre - (c + d) * centre + shift_y,
            zero,
            zero,
        ],
        axis=1,
    )
    images = tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms,
        output_shape=[size, size],
        interpolation="BILINEAR",
        fill_mode="REFLECT",
        fill_value=0.0,
    )

    def per_image(values: Any) -> Any:
        return values[:, tf.newaxis, tf.newaxis, tf.newaxis]

    channel_gain = tf.exp(tf.stack([between(row, -0.08, 0.08) for row in (6, 7, 8)], axis=1))[
        :, tf.newaxis, tf.newaxis, :
    ]
    images = images * channel_gain * per_image(tf.exp(between(9, -0.15, 0.15)))
    mean = tf.reduce_mean(images, [1, 2], keepdims=True)
    images = mean + (images - mean) * per_image(tf.exp(between(10, -0.2, 0.2)))
    grey = tf.reduce_mean(images, 3, keepdims=True)
    images = grey + (images - grey) * per_image(tf.exp(between(11, -0.2, 0.2)))
    return tf.clip_by_value(images, 0.0, 255.0)
