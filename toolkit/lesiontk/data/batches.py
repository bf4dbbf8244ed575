"""tf.data pipelines over prepared images; the same seed and epoch give the same batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.data.augment import Augmentation
from lesiontk.data.images import ImageSet
from lesiontk.errors import DataError
from lesiontk.system.frameworks import import_tensorflow

Mixture = Callable[[Any, Any, Any], tuple[Any, Any]]
"""Maps images [B, S, S, 3], targets [B, C] and a seed int32 [2] to mixed images and targets."""

Teach = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Maps images [B, S, S, 3] to a teacher's soft targets for them, [B, C], and its features, if used,
[B, C + D]."""


class TrainingBatches:
    """The training batches of each epoch, in one image size.

    An epoch is a ``tf.data.Dataset`` of images float32 [B, S, S, 3] in 0..255 and targets
    float32 [B, T]. The graph that loads a batch is traced once, not once an epoch.
    """

    def __init__(
        self,
        images: ImageSet,
        rows: NDArray[np.int64],
        targets: NDArray[np.float32],
        probabilities: NDArray[np.float64] | None,
        *,
        batch_size: int,
        augment: Augmentation,
        mixtures: Sequence[Mixture] = (),
        teach: Teach | None = None,
        size: int | None = None,
        seed: int,
    ) -> None:
        """`targets` [N, T] contains a row for each image. With `teach` the rows end with what it
        returns for each augmented image, T + C or T + C + D, computed in the size of the training
        pictures. S is `size`, or that of `images`; larger training pictures are augmented as much
        larger. With `probabilities` [len(rows)] images are drawn with replacement,
        otherwise shuffled. The incomplete last batch is dropped. Raises `DataError` if there is not
        one whole batch.
        """
        if len(rows) < batch_size:
            raise DataError(
                f"{len(rows)} training images are fewer than one batch of {batch_size}; reduce "
                "train.batch_size."
            )
        self._rows, self._probabilities = rows, probabilities
        self._batch_size, self._seed = batch_size, seed
        tf = import_tensorflow()
        pictures_of, places = images.training_source()
        height, width = pictures_of.shape[1:3]
        whole = images.preprocessing.image_size
        size = size or whole
        augmented = round(height * size / whole) if teach is None else height

        def read(indices: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
            return pictures_of[places[indices]], targets[indices]

        def load(step: Any, indices: Any, seed: Any) -> tuple[Any, Any]:
            pixels, labels = tf.numpy_function(read, [indices], [tf.uint8, tf.float32])
            pixels.set_shape([batch_size, height, width, 3])
            labels.set_shape([batch_size, targets.shape[1]])
            key = tf.cast(tf.stack([seed, step]), tf.int32)
            pictures = tf.cast(pixels, tf.float32)
            if augmented != height:
                shape = [augmented, round(augmented * width / height)]
                pictures = tf.image.resize(pictures, shape, antialias=True)
            pictures = augment(pictures, key)
            for number, mix in enumerate(mixtures, start=1):
                pictures, labels = mix(pictures, labels, tf.add(key, [0, number << 24]))
            if teach is not None:
                teacher_input = tf.cast(tf.round(pictures), tf.uint8)
                soft_targets = tf.numpy_function(teach, [teacher_input], tf.float32)
                soft_targets.set_shape([batch_size, None])
                labels = tf.concat([labels, soft_targets], 1)
            if augmented != size:
                pictures = tf.image.resize(pictures, [size, size], antialias=True)
            return pictures, labels

        self._load = tf.function(load, autograph=False)

    def epoch(self, epoch: int) -> Any:
        """Return the batches of an epoch; the same again if asked again."""
        tf = import_tensorflow()
        generator = np.random.default_rng([self._seed, epoch])
        rows, probabilities = self._rows, self._probabilities
        order = (
            generator.permutation(rows)
            if probabilities is None
            else generator.choice(rows, len(rows), p=probabilities)
        )
        seed = tf.constant(self._seed * 100_003 + epoch, tf.int64)
        return (
            tf.data.Dataset.from_tensor_slices(order)
            .batch(self._batch_size, drop_remainder=True)
            .enumerate()
            .map(
                tf.autograph.experimental.do_not_convert(
                    lambda step, indices: self._load(step, indices, seed)
                ),
                num_parallel_calls=tf.data.AUTOTUNE,
                deterministic=True,
            )
            .prefetch(tf.data.AUTOTUNE)
        )
