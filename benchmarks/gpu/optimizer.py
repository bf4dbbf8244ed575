"""AdamW with layer-wise rates, weight averaging and the rate schedule of `lesiontk.train`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lesiontk.recipe import TrainSection

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-7
"""Those of Keras' Adam."""


class AdamW:
    """Keras' Adam with decoupled weight decay, as `lesiontk.train.optimizer.make_optimizer`.

    Keras adds epsilon to the uncorrected root of the second moment, PyTorch to the corrected one:
    in the first steps ``torch.optim.AdamW`` is another optimizer. `shares` are of the learning
    rate, one for each weight. Where the weights are on a GPU, so is the rate, and a captured graph
    of `step` follows `set_rate`.
    """

    def __init__(
        self, weights: Sequence[nn.Parameter], shares: Sequence[float], weight_decay: float
    ) -> None:
        self.weights, self.shares = list(weights), list(shares)
        # Kernels decay; gamma, beta and bias are vectors.
        decayed = [(w, s) for w, s in zip(weights, shares, strict=True) if w.ndim > 1]
        self.decayed = [weight for weight, _ in decayed]
        self.decays = [weight_decay * share for _, share in decayed]
        self.means = [torch.zeros_like(weight) for weight in weights]
        self.squares = [torch.zeros_like(weight) for weight in weights]
        self.steps = 0
        self.rate, self.corrected_rate = torch.zeros(2, device=self.weights[0].device)

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next `step`, and count it."""
        self.steps += 1
        correction = math.sqrt(1 - BETA2**self.steps) / (1 - BETA1**self.steps)
        self.rate.fill_(rate)
        self.corrected_rate.fill_(rate * correction)

    @torch.no_grad()
    def step(self) -> None:
        """Update the weights by their gradients."""
        gradients = [weight.grad for weight in self.weights]
        if self.decayed and any(self.decays):
            lost = torch._foreach_mul(self.decayed, self.decays)
            torch._foreach_mul_(lost, self.rate)
            torch._foreach_sub_(self.decayed, lost)
        torch._foreach_lerp_(self.means, gradients, 1 - BETA1)
        torch._foreach_mul_(self.squares, BETA2)
        torch._foreach_addcmul_(self.squares, gradients, gradients, 1 - BETA2)
        divisors = torch._foreach_sqrt(self.squares)
        torch._foreach_add_(divisors, EPSILON)
        updates = torch._foreach_div(self.means, divisors)
        torch._foreach_mul_(updates, self.shares)
        torch._foreach_mul_(updates, self.corrected_rate)
        torch._foreach_sub_(self.weights, updates)


class WeightAverages:
    """Exponential averages of weights; with momentum 0 the weights themselves."""

    def __init__(self, weights: Sequence[nn.Parameter], momentum: float) -> None:
        self.weights, self.momentum = list(weights), momentum
        self.averages = [w.detach().clone() for w in weights] if momentum else []

    @torch.no_grad()
    def update(self) -> None:
        """Average the weights after a step."""
        if self.momentum:
            torch._foreach_lerp_(self.averages, self.weights, 1 - self.momentum)

    @torch.no_grad()
    def assign(self) -> None:
        """Replace the weights by their averages, as lesiontk does after each epoch."""
        for weight, average in zip(self.weights, self.averages, strict=False):
            weight.copy_(average)


def rate_at(section: TrainSection, progress: float) -> float:
    """Return the learning rate of the whole network after a share `progress` (0 to 1) of it.

    At ``step / (epochs * steps)`` it is that of `lesiontk.train.optimizer.make_schedule`.
    """
    if section.schedule == "constant":
        return section.learning_rate
    warmup = section.warmup_epochs / max(section.epochs - section.head_epochs, 1)
    if progress < warmup:
        return section.learning_rate * progress / warmup
    done = min((progress - warmup) / max(1 - warmup, 1e-9), 1.0)
    return section.learning_rate * (0.002 + 0.998 * 0.5 * (1 + math.cos(math.pi * done)))


def clear_gradients(weights: Sequence[Tensor]) -> None:
    """Forget the gradients, so that the next backward pass allocates its own."""
    for weight in weights:
        weight.grad = None
