"""Gradient accumulation: training a model up to its logits with batches in parts."""

from __future__ import annotations

from typing import Any

from lesiontk.system.frameworks import import_keras, import_tensorflow


def accumulate_gradients(model: Any, micro_batches: int, output: Any = None) -> Any:
    """Return a model from pixels to logits, or to `output`, that shares the layers of `model`.

    With `micro_batches` above 1 each batch is divided into that many equal parts, processed one
    after the other, and the step uses the mean of their gradients: the same step as for the whole
    batch, except for what depends on several images: BatchNormalization, which uses the statistics
    of one part, and relations between images, which are those within one part.
    """
    keras, tf = import_keras(), import_tensorflow()
    base: Any = keras.Model

    class AccumulatingModel(base):  # type: ignore[misc]
        def train_step(self, data: Any) -> Any:
            if micro_batches == 1:
                return super().train_step(data)
            images, targets = (tf.split(part, micro_batches) for part in data)
            images, targets = tf.stack(images), tf.stack(targets)
            variables = self.trainable_variables

            def accumulate(number: Any, total: Any, *sums: Any) -> Any:
                with tf.GradientTape() as tape:
                    logits = self(images[number], training=True)
                    loss = self.compute_loss(y=targets[number], y_pred=logits) / micro_batches
                gradients = tape.gradient(loss, variables)
                added = [a + g for a, g in zip(sums, gradients, strict=True)]
                return (number + 1, total + loss, *added)

            zeros = [tf.zeros_like(variable) for variable in variables]
            _, _, *gradients = tf.while_loop(
                lambda number, *_: number < micro_batches, accumulate, (0, 0.0, *zeros)
            )
            self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
            return {metric.name: metric.result() for metric in self.metrics}

    return AccumulatingModel(
        model.input, model.get_layer("logits").output if output is None else output
    )
