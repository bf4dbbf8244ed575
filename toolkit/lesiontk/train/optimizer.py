"""AdamW with layer-wise learning rates, and the learning rate schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lesiontk.recipe import TrainSection
from lesiontk.system.frameworks import import_keras, import_tensorflow
from lesiontk.train.feature_losses import PROJECTION


def layer_rates(layers: Sequence[str], lowest: float) -> dict[str, float]:
    """Return layer -> its share of the learning rate.

    Shares increase geometrically from `lowest` at the first layer to 1 at the last, because the
    general features of a pretrained network should change less than its specific ones
    ("discriminative fine-tuning", Howard & Ruder, arXiv:1801.06146, section 3.2).
    """
    last = max(len(layers) - 1, 1)
    return {name: lowest ** (1 - number / last) for number, name in enumerate(layers)}


def make_schedule(section: TrainSection, *, steps: int, epochs: int) -> Any:
    """Return the learning rate over `epochs` of `steps`: a number or a schedule."""
    if section.schedule == "constant":
        return section.learning_rate
    warmup = int(section.warmup_epochs * steps)
    return import_keras().optimizers.schedules.CosineDecay(
        0.0 if warmup else section.learning_rate,
        max(1, epochs * steps - warmup),
        alpha=0.002,
        warmup_target=section.learning_rate if warmup else None,
        warmup_steps=warmup,
    )


def make_optimizer(section: TrainSection, model: Any, rate: Any) -> Any:
    """Return an optimizer for the trainable variables of `model`; `rate` is a Keras argument.

    A projection of features, which is not part of the network, has the whole rate.
    """
    layers = [layer for layer in model.layers if layer.trainable_variables]
    names = [layer.name for layer in layers if layer.name != PROJECTION]
    shares = {PROJECTION: 1.0, **layer_rates(names, section.lowest_rate)}
    owned = [(variable, layer.name) for layer in layers for variable in layer.trainable_variables]
    optimizer = _define_adamw(
        shares={variable._unique_id: shares[layer] for variable, layer in owned},
        decay={
            variable._unique_id: section.weight_decay
            for variable, _ in owned
            if not any(part in variable.name for part in ("gamma", "beta", "bias"))
        },
    )(
        rate,
        use_ema=section.ema > 0,
        ema_momentum=section.ema or 0.99,
        ema_overwrite_frequency=None,
    )
    optimizer.build(model.trainable_variables)
    return optimizer


def _define_adamw(shares: Mapping[str, float], decay: Mapping[str, float]) -> Any:
    """Return the class; the mappings are not its attributes, to keep them out of checkpoints."""
    keras, tf = import_keras(), import_tensorflow()
    base: Any = keras.optimizers.Adam

    class LayerwiseAdamW(base):  # type: ignore[misc]
        """Adam with decoupled weight decay (Loshchilov & Hutter, arXiv:1711.05101, algorithm 2).

        `shares` and `decay` map a variable's unique id to its share of the learning rate and to its
        weight decay. An Adam step is proportional to the rate, so a share of it is exact.
        """

        def update_step(self, gradient: Any, variable: Any) -> None:
            """Update one variable; Keras calls this for each while it traces the step.

            One kernel computes Adam's formula. Keras' own step takes about twenty operations for
            each variable, and tracing them takes seconds for a deep network.
            """
            key, dtype = self._var_key(variable), variable.dtype
            place = self._index_dict[key]
            rate = tf.cast(self.learning_rate, dtype) * shares[key]
            if decay.get(key):
                variable.assign_sub(variable * (rate * decay[key]))
            step = tf.cast(self.iterations + 1, dtype)
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=self._momentums[place].handle,
                v=self._velocities[place].handle,
                beta1_power=tf.pow(tf.cast(self.beta_1, dtype), step),
                beta2_power=tf.pow(tf.cast(self.beta_2, dtype), step),
                lr=rate,
                beta1=self.beta_1,
                beta2=self.beta_2,
                epsilon=self.epsilon,
                grad=gradient,
            )

    return LayerwiseAdamW
