"""The losses and mixtures of `lesiontk.train` in PyTorch.

Weights, shifts, focus and softening are those of `lesiontk.train.imbalance` itself, which needs no
TensorFlow for them; what is written here again is the cross entropy around them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lesiontk.errors import UsageError, suggest
from lesiontk.train.distillation import weigh_soft_targets
from lesiontk.train.feature_losses import FEATURE_LOSSES
from lesiontk.train.imbalance import choose_imbalance, weigh_and_shift


class ClassificationLoss:
    """The loss of a recipe's imbalance choices, and of a teacher's soft targets beside them.

    `counts` are the training images of each class, int [C]. With `weight` above 0 the loss is that
    of `lesiontk.train.distillation.SoftTargets`.
    """

    def __init__(
        self,
        imbalance: Sequence[str],
        counts: NDArray[np.int64],
        *,
        temperature: float = 1.0,
        weight: float = 0.0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.choices = [choose_imbalance(text) for text in imbalance]
        weights, shift = weigh_and_shift(self.choices, counts)
        self.temperature, self.weight = temperature, weight
        self.class_weights = torch.from_numpy(weights).to(device)
        self.shift = torch.from_numpy(shift).to(device)
        self.soft_weights = torch.from_numpy(weigh_soft_targets(weights, shift)).to(device)

    def __call__(self, logits: Tensor, targets: Tensor, soft: Tensor | None = None) -> Tensor:
        """Return the mean over a batch of logits [N, C].

        `targets` are shares of the classes and `soft` a teacher's probabilities, softened by
        `soften`; both are [N, C].
        """
        loss = self.hard(logits, targets)
        if soft is not None:
            half = self.shift / 2
            shifted = soft * torch.exp(half)
            shifted = shifted / shifted.sum(1, keepdim=True)
            soft_loss = cross_entropy(logits / self.temperature + half, shifted)
            soft_loss = soft_loss * self.temperature**2 * (targets @ self.soft_weights)
            loss = (1 - self.weight) * loss + self.weight * soft_loss
        return loss.mean()

    def hard(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each image without a teacher, [N]."""
        softened = targets
        for choice in self.choices:
            if choice.soften:
                softened = choice.soften(softened)
        shifted = logits + self.shift
        loss = cross_entropy(shifted, softened)
        for choice in self.choices:
            if choice.focus:
                loss = loss * choice.focus((targets * torch.softmax(shifted, 1)).sum(1))
        return loss * (targets @ self.class_weights)


class FeatureLosses(nn.Module):
    """The losses between pooled features of `lesiontk.train.feature_losses`, and their projection.

    `weights` are those of the losses by name, as `read_weights` returns; `own` and `width` are the
    widths of the student's and the teacher's features. Raises `UsageError` for a loss that is not
    known here.
    """

    def __init__(self, weights: Mapping[str, float], own: int, width: int) -> None:
        super().__init__()
        for name in weights:
            if name not in COMPARISONS:
                raise UsageError(
                    f"feature loss {name!r} has no version in PyTorch; expected one of "
                    f"{', '.join(COMPARISONS)}.{suggest(name, COMPARISONS)}"
                )
        self.terms = {name: (FEATURE_LOSSES.get(name), weight) for name, weight in weights.items()}
        projected = any(loss.projected for loss, _ in self.terms.values())
        self.projection = nn.Linear(own, width, bias=False) if projected else None
        if self.projection is not None:
            nn.init.xavier_uniform_(self.projection.weight)  # Keras' default

    def forward(self, own: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean over a batch of features [N, P] and the teacher's [N, D]."""
        projected = own if self.projection is None else self.projection(own)
        values = [
            weight * COMPARISONS[name](projected if loss.projected else own, teacher)
            for name, (loss, weight) in self.terms.items()
        ]
        return torch.stack(values).sum(0).mean()


def compare_by_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Return 1 - cos(student, teacher), [N]."""
    return 1 - (functional.normalize(student) * functional.normalize(teacher)).sum(1)


def compare_by_similarity(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared distance between the rows of both Gram matrices of a batch, [N]."""
    ours, theirs = (functional.normalize(rows @ rows.T) for rows in (student, teacher))
    return ((ours - theirs) ** 2).sum(1)


COMPARISONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "feature": compare_by_angle,
    "relational": compare_by_similarity,
}


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return one value for each image, [N], of shares of the classes [N, C]."""
    return functional.cross_entropy(logits, targets, reduction="none")


def soften(probabilities: Tensor, temperature: float) -> Tensor:
    """Return the probabilities [N, C] of the same softmax at another temperature."""
    powers = probabilities.clamp_min(1e-7) ** (1 / temperature)
    return powers / powers.sum(1, keepdim=True)


def mix_up(images: Tensor, targets: Tensor, share: Tensor, center: Tensor) -> tuple[Tensor, Tensor]:
    """Return each image [N, 3, S, S] and target [N, C] blended with its neighbor in the batch."""
    wide, flat = share[:, None, None, None], share[:, None]
    mixed = wide * images + (1 - wide) * images.roll(1, 0)
    return mixed, flat * targets + (1 - flat) * targets.roll(1, 0)


def cut_mix(
    images: Tensor, targets: Tensor, share: Tensor, center: Tensor
) -> tuple[Tensor, Tensor]:
    """Return images [N, 3, S, S] with a rectangle of their neighbor around `center` [2, N] in
    0..1, of 1 - `share` of the area, and the targets mixed by what of it is inside."""
    side = torch.sqrt(1 - share)
    pixel = (torch.arange(images.shape[2], device=images.device) + 0.5) / images.shape[2]
    rows, columns = ((pixel - c[:, None]).abs() < side[:, None] / 2 for c in center)
    inside = rows[:, :, None] & columns[:, None, :]
    area = inside.float().mean((1, 2))[:, None]
    mixed = torch.where(inside[:, None], images.roll(1, 0), images)
    return mixed, (1 - area) * targets + area * targets.roll(1, 0)


Mix = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
MIXTURES: dict[str, tuple[Mix, float]] = {"mixup": (mix_up, 0.2), "cutmix": (cut_mix, 1.0)}
"""Choice -> its function, and the parameter of Beta that lesiontk gives it by default."""


@dataclass(frozen=True)
class Mixture:
    """One mixture of a recipe; `alpha` is the parameter of the shares' Beta(alpha, alpha)."""

    mix: Mix
    alpha: float

    def draw_shares(self, generator: np.random.Generator, count: int) -> NDArray[np.float32]:
        """Return the shares of a batch, float32 [count] in 0..1."""
        return generator.beta(self.alpha, self.alpha, count).astype(np.float32)


def list_mixtures(imbalance: Sequence[str]) -> list[Mixture]:
    """Return a recipe's mixtures in order. Raises `UsageError` for one that is not known here."""
    mixtures = []
    for text in imbalance:
        name, _, strength = text.partition(":")
        if choose_imbalance(text).mix is None:
            continue
        if name not in MIXTURES:
            raise UsageError(
                f"imbalance choice {name!r} mixes images and has no version in PyTorch; expected "
                f"one of {', '.join(MIXTURES)}.{suggest(name, MIXTURES)}"
            )
        mix, alpha = MIXTURES[name]
        mixtures.append(Mixture(mix, float(strength) if strength else alpha))
    return mixtures
