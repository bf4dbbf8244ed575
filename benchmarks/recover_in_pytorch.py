"""Fine-tune a compressed network in PyTorch, for a GPU that TensorFlow cannot use.

    python benchmarks/recover_in_pytorch.py STUDENT.keras --teacher TEACHER.keras … \\
        --images IMAGES … --epochs 100 --out OUT.keras

STUDENT and TEACHER are ``.keras`` files of lesiontk of one split, IMAGES folders of prepared images
(``images-…`` of a workspace), one for the size of each. OUT is the student with other weights:
``lesiontk load-weights OUT.keras --model MODEL`` loads them into MODEL. TensorFlow is not needed;
PyTorch is, and lesiontk does not install it.

The training is that of ``lesiontk distill``, with three differences. Several teachers are combined
by the mean of their log probabilities. They predict each augmented image (Beyer et al.,
arXiv:2106.05237: "consistent and patient"), where lesiontk predicts each image once without
augmentation. And no epoch is chosen: the result are the averaged weights of the last epoch, with
BatchNormalization statistics measured again.
"""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from keras_in_pytorch import KerasNetwork
from torch import Tensor, nn
from torch.nn import functional

SEEN = "may_have_seen_test"
"""The key of a model trained elsewhere in a file's description."""


@dataclass(frozen=True)
class Pictures:
    """Prepared images of one size on the device: uint8 [N, 3, S, S], class of each, int64 [N]."""

    pixels: Tensor
    targets: Tensor


def read_pictures(
    folders: Sequence[Path], size: int, subset: str, spec: dict[str, Any], device: str
) -> Pictures:
    """Return a subset of the images of a size. Raises `click.ClickException` without them."""
    for folder in folders:
        facts = json.loads((folder / "manifest.json").read_text())["facts"]
        if facts["preprocessing"]["image_size"] != size:
            continue
        if facts["split_hash"] != spec["split_hash"]:
            raise click.ClickException(f"{folder.name} is of another split than the network.")
        with (folder / "images.csv").open() as text:
            rows = list(csv.DictReader(text))
        taken = [i for i, row in enumerate(rows) if row["subset"] == subset]
        pixels = torch.from_numpy(np.load(folder / "images.npy", mmap_mode="r")[taken])
        targets = torch.tensor([spec["labels"].index(rows[i]["label"]) for i in taken])
        return Pictures(
            pixels.to(device).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last),
            targets.to(device),
        )
    raise click.ClickException(f"no --images of {size} pixels; prepare them with that image size.")


@dataclass(frozen=True)
class View:
    """The augmentation parameters of each image of a batch, for any size: [N, 2, 3] and [N, …]."""

    theta: Tensor
    gain: Tensor
    contrast: Tensor
    saturation: Tensor

    def apply(self, images: Tensor) -> Tensor:
        """Return float [N, 3, S, S] in 0..255."""
        grid = functional.affine_grid(self.theta, list(images.shape), align_corners=False)
        images = functional.grid_sample(
            images.float(), grid, padding_mode="reflection", align_corners=False
        )
        images = images * self.gain
        mean = images.mean((2, 3), keepdim=True)
        images = mean + (images - mean) * self.contrast
        grey = images.mean(1, keepdim=True)
        images = grey + (images - grey) * self.saturation
        return images.clamp(0, 255).contiguous(memory_format=torch.channels_last)


def view_from_uniform(unit: Tensor) -> View:
    """Return the augmentation ``dermoscopy`` of lesiontk for draws from 0..1, [12, N]."""

    def between(row: int, low: float, high: float) -> Tensor:
        return low + (high - low) * unit[row]

    angle, zoom = between(0, -math.pi, math.pi), torch.exp(between(1, -0.25, 0.15))
    aspect = torch.exp(between(2, -0.1, 0.1))
    mirror = 1 - 2 * (unit[3] < 0.5).float()
    a, b = torch.cos(angle) * zoom * aspect * mirror, -torch.sin(angle) * zoom / aspect
    c, d = torch.sin(angle) * zoom * aspect * mirror, torch.cos(angle) * zoom / aspect
    x, y = between(4, -0.12, 0.12), between(5, -0.12, 0.12)  # an image is 2 wide in a grid
    theta = torch.stack([torch.stack([a, b, x], 1), torch.stack([c, d, y], 1)], 1)
    gains = torch.exp(torch.stack([between(row, -0.08, 0.08) for row in (6, 7, 8)], 1))
    gain = gains * torch.exp(between(9, -0.15, 0.15))[:, None]
    contrast, saturation = (torch.exp(between(row, -0.2, 0.2)) for row in (10, 11))
    return View(
        theta,
        gain[:, :, None, None],
        contrast[:, None, None, None],
        saturation[:, None, None, None],
    )


@dataclass(frozen=True)
class Loss:
    """The loss of ``lesiontk distill``, of `lesiontk.train.distillation`, with logit adjustment."""

    shift: Tensor
    temperature: float
    weight: float

    def __call__(self, logits: Tensor, truth: Tensor, taught: Tensor) -> Tensor:
        """Return the mean over a batch; `truth` are shares [N, C], `taught` the teacher's
        logits."""
        half = self.shift / 2
        balance = torch.exp(-half) / (torch.exp(half).sum() / torch.exp(self.shift).sum())
        soft = torch.softmax(taught / self.temperature + half, 1)
        taught = functional.cross_entropy(logits / self.temperature + half, soft, reduction="none")
        taught = taught * self.temperature**2 * (truth @ balance)
        hard = functional.cross_entropy(logits + self.shift, truth, reduction="none")
        return ((1 - self.weight) * hard + self.weight * taught).mean()


class Recovery:
    """One student, its teachers and its images; each step is one replay of a graph on a GPU."""

    def __init__(
        self,
        student: KerasNetwork,
        teachers: Sequence[KerasNetwork],
        folders: Sequence[Path],
        plan: dict[str, Any],
    ) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        layout = {"device": self.device, "memory_format": torch.channels_last}
        self.student = student.to(**layout)
        self.teachers = [teacher.to(**layout).eval() for teacher in teachers]
        self.plan = plan
        spec = student.spec
        self.train = {
            size: read_pictures(folders, size, "train", spec, self.device)
            for size in {network.size for network in (student, *teachers)}
        }
        self.validation = read_pictures(folders, student.size, "validation", spec, self.device)
        self.targets = self.train[student.size].targets
        self.truths = functional.one_hot(self.targets, len(spec["labels"])).float()
        counts = self.truths.sum(0)
        self.loss = Loss(torch.log(counts / counts.sum()), plan["temperature"], plan["weight"])
        if plan["batch_size"] > len(self.targets):
            raise click.ClickException(
                f"--batch-size is {plan['batch_size']}; expected at most the {len(self.targets)} "
                "training images."
            )
        steps, averaged = plan["epochs"] * (len(self.targets) // plan["batch_size"]), plan["ema"]
        if steps * (1 - averaged) < 3:
            raise click.ClickException(
                f"--ema is {averaged}, an average of {1 / (1 - averaged):.0f} steps; expected at "
                f"most a third of the {steps} that are taken: less, or more --epochs."
            )
        self.weights = list(student.parameters())
        self.averages = [weight.detach().clone() for weight in self.weights]
        decayed = [w for w in self.weights if w.ndim > 1]
        others = [w for w in self.weights if w.ndim == 1]
        self.rate = torch.tensor(0.0, device=self.device)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": plan["weight_decay"]},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=self.rate if self.device == "cuda" else 0.0,
            capturable=self.device == "cuda",
        )
        batch = plan["batch_size"]
        self.chosen = torch.zeros(batch, dtype=torch.int64, device=self.device)
        self.share = torch.ones(batch, device=self.device)
        self.last_loss = torch.zeros((), device=self.device)
        self.graph: Any = None

    def look(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the student's images of a batch, augmented and mixed, their labels, and the
        teachers' logits for them."""
        view = view_from_uniform(torch.rand(12, len(self.chosen), device=self.device))
        share = self.share[:, None]

        def mixed(values: Tensor) -> Tensor:
            wide = share.reshape(-1, *[1] * (values.ndim - 1))
            return wide * values + (1 - wide) * values.roll(1, 0)

        seen = {
            size: mixed(view.apply(pictures.pixels[self.chosen]))
            for size, pictures in self.train.items()
        }
        truth = self.truths[self.chosen]
        with torch.no_grad(), self.cast():
            taught = [torch.log_softmax(net(seen[net.size]), 1) for net in self.teachers]
        return seen[self.student.size], mixed(truth), torch.stack(taught).mean(0)

    def cast(self) -> Any:
        return torch.autocast(self.device, torch.bfloat16, cache_enabled=False)

    def step(self) -> None:
        """Take one step on the images `chosen`."""
        images, truth, taught = self.look()
        with self.cast():
            logits = self.student(images)
        loss = self.loss(logits, truth, taught)
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, 1.0, foreach=True)
        self.optimizer.step()
        torch._foreach_lerp_(
            self.averages, [w.detach() for w in self.weights], 1 - self.plan["ema"]
        )
        self.last_loss.copy_(loss.detach())

    def take(self, chosen: Tensor, share: Tensor, rate: float) -> None:
        """Take one step, as a replay of the captured graph on a GPU."""
        self.chosen.copy_(chosen)
        self.share.copy_(share)
        if self.device != "cuda":
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.zero_grad()
            self.step()
            return
        self.rate.fill_(rate)
        if self.graph is None:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    self.optimizer.zero_grad(set_to_none=True)
                    self.step()
            torch.cuda.current_stream().wait_stream(stream)
            self.optimizer.zero_grad(set_to_none=True)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.step()
        else:
            # The gradients are in the graph's memory, and its backward pass overwrites them.
            self.graph.replay()

    def batches(self, generator: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the image numbers of an epoch's batches, and the share of each in its mixture."""
        batch, alpha = self.plan["batch_size"], self.plan["mixup"]
        order = torch.from_numpy(generator.permutation(len(self.targets))).to(self.device)
        for start in range(0, len(order) - batch + 1, batch):
            share = generator.beta(alpha, alpha, batch) if alpha else np.ones(batch)
            yield (
                order[start : start + batch],
                torch.from_numpy(share.astype(np.float32)).to(self.device),
            )

    def run(self) -> None:
        """Train; afterwards the student has the averaged weights."""
        plan, generator = self.plan, np.random.default_rng(self.plan["seed"])
        steps = len(self.targets) // plan["batch_size"]
        epochs, started = plan["epochs"], time.perf_counter()
        self.student.train()
        done = 0
        while done < epochs:
            for number, (chosen, share) in enumerate(self.batches(generator)):
                passed = done + number / steps
                rate = plan["learning_rate"]
                if passed < plan["warmup_epochs"]:
                    rate *= passed / plan["warmup_epochs"] + 1e-3
                rate *= 0.5 * (1 + math.cos(math.pi * passed / epochs))
                self.take(chosen, share, rate)
            done += 1
            seconds = time.perf_counter() - started
            if done % max(1, epochs // 10) == 0:
                click.echo(
                    f"epoch {done}: loss {float(self.last_loss):.3f}, {seconds:.0f} s, "
                    f"weights as they are: {format_scores(self.score())}",
                )
        self.finish(generator)

    def finish(self, generator: np.random.Generator) -> None:
        """Replace the weights by their averages, and measure the BatchNormalization statistics."""
        with torch.no_grad():
            for weight, average in zip(self.weights, self.averages, strict=True):
                weight.copy_(average)
            self.student.train()
            number = 0
            for _ in range(2):
                for chosen, _ in self.batches(generator):
                    self.chosen.copy_(chosen)
                    self.share.fill_(1.0)
                    number += 1
                    self.student.momentum = 1 / number
                    self.student(self.look()[0])
            self.student.momentum = None

    def score(self) -> dict[str, float]:
        """Return the validation scores of the weights."""
        self.student.eval()
        with torch.no_grad():
            logits = torch.cat([self.student(part) for part in self.floats()]).cpu()
        self.student.train()
        targets = self.validation.targets.cpu()
        right = logits.argmax(1) == targets
        recalls = {
            f"recall[{label}]": right[targets == c].float().mean().item()
            for c, label in enumerate(self.student.spec["labels"])
        }
        return {
            "balanced_accuracy": float(np.nanmean(list(recalls.values()))),
            "accuracy": right.float().mean().item(),
            "log_loss": functional.cross_entropy(logits, targets).item(),
            **recalls,
        }

    def floats(self) -> Iterator[Tensor]:
        for part in self.validation.pixels.split(256):
            yield part.float()


def format_scores(scores: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in scores.items())


@click.command()
@click.argument("student", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--teacher",
    "teachers",
    type=click.Path(exists=True, path_type=Path),
    required=True,
    multiple=True,
)
@click.option(
    "--images", type=click.Path(exists=True, path_type=Path), required=True, multiple=True
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
@click.option("--epochs", default=100, show_default=True)
@click.option("--batch-size", default=128, show_default=True)
@click.option("--learning-rate", default=1e-3, show_default=True)
@click.option("--warmup-epochs", default=2.0, show_default=True)
@click.option("--weight-decay", default=0.05, show_default=True)
@click.option("--temperature", default=2.0, show_default=True)
@click.option(
    "--weight",
    default=0.9,
    show_default=True,
    help="Weight of the soft targets against the true labels.",
)
@click.option("--mixup", default=0.2, show_default=True, help="Beta's parameter; 0 for none.")
@click.option(
    "--ema",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.998,
    show_default=True,
    help="Momentum of the averaged weights, which are the result.",
)
@click.option("--seed", default=1, show_default=True)
def cli(
    student: Path, teachers: Sequence[Path], images: Sequence[Path], out: Path, **plan: Any
) -> None:
    """Train the weights of STUDENT on the teachers' soft targets, and write them to --out."""
    torch.manual_seed(plan["seed"])
    learner, *others = (KerasNetwork(path) for path in (student, *teachers))
    for other, path in zip(others, teachers, strict=True):
        if other.spec["split_hash"] != learner.spec["split_hash"]:
            raise click.ClickException(f"{path.name} is of another split than the student.")
        if other.spec["labels"] != learner.spec["labels"]:
            raise click.ClickException(f"{path.name} has other labels than the student.")
        if other.spec["extra"].get(SEEN):
            click.echo(
                f"{path.name} may have seen the test images, which the student's file records"
            )
            learner.spec["extra"][SEEN] = True
    recovery = Recovery(learner, others, images, plan)
    click.echo(f"before: {format_scores(recovery.score())}")
    started = time.perf_counter()
    recovery.run()
    seconds = round(time.perf_counter() - started)
    click.echo(f"averaged: {format_scores(recovery.score())}")
    device = torch.cuda.get_device_name() if recovery.device == "cuda" else "CPU"
    names = [f"{net.spec['recipe']} {net.size} px" for net in others]
    told = {"script": Path(__file__).name, "teachers": names, **plan, "seconds": seconds}
    told |= {"device": device, "torch": torch.__version__}
    learner.write(student, out, told)


if __name__ == "__main__":
    cli()
