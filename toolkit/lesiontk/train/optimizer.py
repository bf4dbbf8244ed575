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

        _share = 1.0

        @property
        def learning_rate(self) -> Any:
            """The rate of the variable that is being updated."""
            return super().learning_rate * self._share

        def update_step(self, gradient: Any, variable: Any) -> None:
            """Update one variable; Keras calls this for each while it traces the step."""
            key = self._var_key(variable)
            self._share = shares[key]
            if decay.get(key):
                rate = tf.cast(self.learning_rate, variable.dtype)
                variable.assign_sub(variable * rate * decay[key])
            super().update_step(gradient, variable)
            self._share = 1.0

    return LayerwiseAdamW
