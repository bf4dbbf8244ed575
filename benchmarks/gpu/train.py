"""The training of one recipe's network in PyTorch, within a number of epochs and a time limit."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from keras_in_pytorch import KerasNetwork
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from gpu.augment import draw, find_augmentation, resize
from gpu.jobs import Job
from gpu.losses import ClassificationLoss, FeatureLosses, list_mixtures, soften
from gpu.optimizer import AdamW, WeightAverages, clear_gradients, rate_at
from gpu.pack import Pictures, read_images
from lesiontk.data.tasks import Task, load_task, sum_labels
from lesiontk.errors import DataError
from lesiontk.evaluate.metrics import compute_metrics
from lesiontk.recipe import TrainSection
from lesiontk.records import MAY_HAVE_SEEN_TEST
from lesiontk.train.feature_losses import read_weights
from lesiontk.train.imbalance import draw_weights
from lesiontk.train.optimizer import layer_rates

SCORES = ("balanced_accuracy", "macro_auc")
IN_FLIGHT = 4
"""Steps queued on a GPU at once: the clock is read on the CPU, which must not run far ahead."""
STATISTICS_BATCHES = 50
"""Batches on which the statistics of BatchNormalization are measured anew, at most."""


class Phase:
    """The layers that are trained together, their optimizer and their averages.

    A recipe trains the last layer alone for ``head_epochs``, on frozen features, then all layers. A
    `projection` of features is trained in each phase, and is not part of the network.
    """

    def __init__(
        self,
        network: KerasNetwork,
        section: TrainSection,
        *,
        whole: bool,
        projection: Sequence[nn.Parameter] = (),
    ) -> None:
        layers = network.layer_weights()
        if not whole:
            last = list(layers)[-1]
            layers = {last: layers[last]}
        shares = layer_rates(list(layers), section.lowest_rate)
        owned = [(weight, shares[name]) for name, weights in layers.items() for weight in weights]
        owned += [(weight, 1.0) for weight in projection]
        self.weights = [weight for weight, _ in owned]
        network.requires_grad_(False)
        for weight in self.weights:
            weight.requires_grad_(True)
        network.frozen = not whole
        self.optimizer = AdamW(self.weights, [share for _, share in owned], section.weight_decay)
        self.averages = WeightAverages(self.weights, section.ema)
        self.graphs: dict[int, Any] = {}


class Trainer:
    """One network, its teachers and its images; each step on a GPU is the replay of a graph.

    `deadline` is the time of ``time.monotonic()`` by which the file must be written, or None.
    """

    def __init__(
        self,
        job: Job,
        *,
        deadline: float | None = None,
        report: Callable[[str], None] = click.echo,
        device: str = "cuda" if torch.cuda.is_available() else "cpu",
    ) -> None:
        self.job, self.section, self.report = job, job.recipe.train, report
        self.deadline, self.device = deadline, torch.device(device)
        torch.manual_seed(self.section.seed)
        self.network = self._load(job.start)
        self.network.skip_blocks(self.section.stochastic_depth)
        self.teachers = [self._load(file).eval() for file in job.teachers]
        self.images = read_images(job.images)
        self._check()
        labels = self.network.spec["labels"]
        self.sums = [
            torch.from_numpy(sum_labels(tuple(net.spec["labels"]), read_task(self.network.spec)))
            .to(self.device)
            for net in self.teachers
        ]  # fmt: skip
        self.pixels, self.targets = self._place(self.images.train, labels)
        self.validation, self.validation_targets = self._place(self.images.validation, labels)
        counts = np.bincount(self.targets, minlength=len(labels))
        if (counts == 0).any():
            missing = [name for name, n in zip(labels, counts, strict=True) if n == 0]
            raise DataError(f"the training images have none of {', '.join(missing)}.")
        self.loss = ClassificationLoss(
            self.section.imbalance,
            counts,
            temperature=job.temperature,
            weight=job.weight if self.teachers else 0.0,
            device=self.device,
        )
        self.features: FeatureLosses | None = None
        if job.losses:
            widths = [self._measure_width(net) for net in (self.network, self.teachers[0])]
            self.features = FeatureLosses(read_weights(job.losses), *widths).to(self.device)
        self.projection = list(self.features.parameters()) if self.features else []
        factors = draw_weights(self.loss.choices, counts)
        self.probabilities: NDArray[np.float64] | None = None
        if factors is not None:
            self.probabilities = factors[self.targets] / factors[self.targets].sum()
        self.mixtures = list_mixtures(self.section.imbalance)
        self.augment = find_augmentation(self.section.augment)
        self.sizes = self.section.list_sizes(self.network.size)
        batch = self.section.batch_size
        self.steps = len(self.targets) // batch
        self.truths = functional.one_hot(torch.from_numpy(self.targets), len(labels))
        self.truths = self.truths.float().to(self.device)
        # What a captured graph reads and writes.
        self.chosen = torch.zeros(batch, dtype=torch.int64, device=self.device)
        self.shares = torch.ones(max(len(self.mixtures), 1), batch, device=self.device)
        self.last_loss = torch.zeros((), device=self.device)

    def _load(self, file: Path) -> KerasNetwork:
        return KerasNetwork(file).to(device=self.device, memory_format=torch.channels_last)

    @torch.no_grad()
    def _measure_width(self, network: KerasNetwork) -> int:
        """Return the number of values of a network's pooled features."""
        size, training = network.size, network.training
        _, features = network.eval().with_features(
            torch.zeros(1, 3, size, size, device=self.device)
        )
        network.train(training)
        return int(features.shape[1])

    def _check(self) -> None:
        """Raise `DataError` where network, images and teachers do not belong together."""
        spec, images = self.network.spec, self.images
        if images.image_size != self.network.size:
            raise DataError(
                f"{self.job.images.name} has images of {images.image_size} pixels; expected "
                f"{self.network.size}, as {self.job.start.name} takes."
            )
        self._check_growth()
        files = (self.job.start, *self.job.teachers)
        for network, file in zip((self.network, *self.teachers), files, strict=True):
            if network.spec["split_hash"] != images.split_hash:
                raise DataError(
                    f"{file.name} is of the split {network.spec['split_hash'][:12]}; expected that "
                    f"of the images, {images.split_hash[:12]}."
                )
            if network.spec["extra"].get(MAY_HAVE_SEEN_TEST):
                spec["extra"][MAY_HAVE_SEEN_TEST] = True
        if len(images.train.labels) < self.section.batch_size:
            raise DataError(
                f"{len(images.train.labels)} training images are fewer than one batch of "
                f"{self.section.batch_size}; reduce train.batch_size."
            )

    @torch.no_grad()
    def _check_growth(self) -> None:
        """Raise `DataError` for sizes that the network does not take or that do not increase."""
        section, size = self.section, self.network.size
        smallest = section.list_sizes(size)[0]
        try:
            self.network.eval()(torch.zeros(1, 3, smallest, smallest, device=self.device))
            fits = section.grows_to(size)
        except RuntimeError:  # a layer is left without pixels
            fits = False
        if not fits:
            raise DataError(
                f"train.grow is {list(section.grow)}; expected increasing sizes below {size} that "
                f"{self.job.start.name} takes, and an epoch for each."
            )

    def _place(self, pictures: Pictures, labels: Sequence[str]) -> tuple[Tensor, NDArray[np.int64]]:
        """Return pixels uint8 [n, 3, S, W] on the device, and the class of each, int64 [n]."""
        pixels = torch.from_numpy(np.array(pictures.pixels)).to(self.device)
        return pixels.permute(0, 3, 1, 2), np.array([labels.index(x) for x in pictures.labels])

    def cast(self) -> Any:
        """Return the context of bfloat16 on a GPU; a CPU computes in float32."""
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.device.type == "cuda",
            cache_enabled=False,
        )  # fmt: skip

    def make_views(self, size: int, *, mix: bool = True) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the batch `chosen` as `lesiontk.data.batches.TrainingBatches` does: augmented
        images [B, 3, size, size], targets [B, C] and what `teach` returns for them."""
        pictures, targets = self.pixels[self.chosen].float(), self.truths[self.chosen]
        height, width = pictures.shape[2:]
        if not self.teachers:
            pictures = resize(pictures, size, round(size * width / height))
        pictures = self.augment(pictures, draw(len(pictures), pictures.shape[2], self.device))
        for mixture, share in zip(self.mixtures if mix else (), self.shares, strict=False):
            center = torch.rand(2, len(pictures), device=self.device)
            pictures, targets = mixture.mix(pictures, targets, share, center)
        soft = self.teach(pictures.round()) if self.teachers and mix else None
        images = resize(pictures, size, size)
        return images.contiguous(memory_format=torch.channels_last), targets, soft

    @torch.no_grad()
    def teach(self, pictures: Tensor) -> Tensor:
        """Return the teachers' mean soft targets [B, C] of images in the student's own size, and,
        where the job has losses of features, the first teacher's beside them, [B, C + D]."""
        probabilities, first = [], []
        for teacher, sums in zip(self.teachers, self.sums, strict=True):
            for view in list_views(resize(pictures, teacher.size, teacher.size))[
                : self.job.teacher_views
            ]:
                with self.cast():
                    logits, features = teacher.with_features(
                        view.contiguous(memory_format=torch.channels_last)
                    )
                probabilities.append(torch.softmax(logits, 1) @ sums)
                if teacher is self.teachers[0]:
                    first.append(features)
        soft = soften(torch.stack(probabilities).mean(0), self.job.temperature)
        return torch.hstack([soft, torch.stack(first).mean(0)]) if self.features else soft

    def step(self, phase: Phase, size: int) -> None:
        """Take one step on the images `chosen`."""
        images, targets, taught = self.make_views(size)
        with self.cast():
            logits, features = self.network.with_features(images)
        classes = targets.shape[1]
        loss = self.loss(logits, targets, None if taught is None else taught[:, :classes])
        if self.features is not None and taught is not None:
            loss = loss + self.features(features, taught[:, classes:])
        loss.backward()
        phase.optimizer.step()
        phase.averages.update()
        self.last_loss.copy_(loss.detach())

    def take(self, phase: Phase, size: int, rate: float) -> None:
        """Take one step at a learning rate; on a GPU it is a replay of the graph for the size."""
        phase.optimizer.set_rate(rate)
        if self.device.type != "cuda":
            clear_gradients(phase.weights)
            self.step(phase, size)
        elif size in phase.graphs:
            # The gradients lie in the graph's memory, and its backward pass writes them anew.
            phase.graphs[size].replay()
        else:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    clear_gradients(phase.weights)
                    self.step(phase, size)
            torch.cuda.current_stream().wait_stream(stream)
            clear_gradients(phase.weights)
            phase.graphs[size] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(phase.graphs[size]):
                self.step(phase, size)

    def batches(self, epoch: int) -> Iterator[NDArray[np.int64]]:
        """Yield the image numbers of an epoch's batches, as lesiontk samples them."""
        generator = np.random.default_rng([self.section.seed, epoch])
        count, batch = len(self.targets), self.section.batch_size
        order = (
            generator.permutation(count)
            if self.probabilities is None
            else generator.choice(count, count, p=self.probabilities)
        )
        for start in range(0, self.steps * batch, batch):
            yield order[start : start + batch]

    def run(self) -> dict[str, float]:
        """Train, write the file and return the validation scores of what was written.

        No epoch is chosen. The clock counts as the steps do: a training that the time limit ends
        has passed through its whole schedule, sizes and phases included.
        """
        section, started = self.section, time.monotonic()
        before = self.score()
        # The end takes a scoring, and about two more for the statistics.
        reserve = 3 * (time.monotonic() - started) + 1
        self.report(f"before: {show_scores(before)}")
        begun, generator = time.monotonic(), np.random.default_rng([section.seed, 0xBE7A])
        limit = math.inf if self.deadline is None else self.deadline - begun - reserve
        if limit <= 0:
            raise DataError(
                f"the time limit leaves {limit + reserve:.0f} s after loading, and the end takes "
                f"{reserve:.0f} s; expected more --minutes."
            )
        total, head = self.steps * section.epochs, section.head_epochs / section.epochs
        phase = Phase(self.network, section, whole=not head, projection=self.projection)
        self.network.train()
        taken, pending, progress = 0, deque[Any](), 0.0
        reported = time.monotonic()
        for epoch in range(section.epochs):
            for chosen in self.batches(epoch):
                progress = max(taken / total, (time.monotonic() - begun) / limit)
                if progress >= 1:
                    break
                if self.network.frozen and progress >= head:
                    phase.averages.assign()
                    phase = Phase(self.network, section, whole=True, projection=self.projection)
                rate = section.head_learning_rate
                if not self.network.frozen:
                    rate = rate_at(section, (progress - head) / (1 - head))
                self.chosen.copy_(torch.from_numpy(chosen))
                for number, mixture in enumerate(self.mixtures):
                    share = mixture.draw_shares(generator, len(chosen))
                    self.shares[number].copy_(torch.from_numpy(share))
                size = self.sizes[min(int(progress * len(self.sizes)), len(self.sizes) - 1)]
                self.take(phase, size, rate)
                taken += 1
                self._wait(pending)
            phase.averages.assign()
            if not math.isfinite(float(self.last_loss)):
                raise DataError(
                    f"training diverged in epoch {epoch + 1}: the loss is not finite. Reduce "
                    f"train.learning_rate (it is {section.learning_rate:g})."
                )
            if progress >= 1:
                break
            if time.monotonic() - reported > 30:
                reported = time.monotonic()
                self.report(f"epoch {epoch + 1}: loss {float(self.last_loss):.3f}, {progress:.0%}")
        self.measure_statistics(taken)
        scores = self.score()
        self.write(taken, time.monotonic() - started)
        self.report(f"after {taken} steps: {show_scores(scores)}")
        return scores

    def _wait(self, pending: deque[Any]) -> None:
        """Wait for the GPU until no more than `IN_FLIGHT` steps are queued."""
        if self.device.type == "cuda":
            pending.append(torch.cuda.Event())
            pending[-1].record()
            if len(pending) > IN_FLIGHT:
                pending.popleft().synchronize()

    @torch.no_grad()
    def measure_statistics(self, epoch: int) -> None:
        """Measure BatchNormalization's statistics anew, of augmented images that are not mixed."""
        if all(layer["class_name"] != "BatchNormalization" for layer in self.network.layers):
            return
        skipped, self.network.skipped = self.network.skipped, {}
        self.network.train()
        self.network.frozen = False
        enough = max(8, len(self.validation) // self.section.batch_size)
        for number, chosen in enumerate(self.batches(epoch), start=1):
            if number > min(enough, STATISTICS_BATCHES):
                break
            self.chosen.copy_(torch.from_numpy(chosen))
            self.network.momentum = 1 / number
            images, _, _ = self.make_views(self.network.size, mix=False)
            self.network(images)
        self.network.momentum, self.network.skipped = None, skipped

    @torch.no_grad()
    def score(self) -> dict[str, float]:
        """Return what the weights reach on validation, in float32."""
        self.network.eval()
        parts = [self.network(part.float()) for part in self.validation.split(64)]
        self.network.train()
        probabilities = torch.softmax(torch.cat(parts).double(), 1).cpu().numpy()
        values = compute_metrics(
            self.validation_targets, probabilities, self.network.spec["labels"]
        )
        return {name: float(values[name][0]) for name in SCORES}

    def write(self, steps: int, seconds: float) -> None:
        """Write the network's file, with how it was trained."""
        job, section = self.job, self.section
        gpu = self.device.type == "cuda"
        names = [f"{net.spec['recipe']} {net.size} px" for net in self.teachers]
        keys = ("temperature", "weight", "losses", "teacher_views")
        teaching = {key: getattr(job, key) for key in keys} if names else {}
        how = {
            "script": "train_on_gpu.py",
            "recipe": job.recipe.name,
            "start": job.start.name,
            "teachers": names,
            **teaching,
            **section.model_dump(
                mode="json", exclude={"micro_batches", "distribute", "patience", "mixed_precision"}
            ),
            "epochs": round(steps / self.steps, 2),
            "steps": steps,
            "seconds": round(seconds),
            "device": torch.cuda.get_device_name() if gpu else "CPU",
            "torch": torch.__version__,
        }
        self.network.write(job.start, job.out, how)


def list_views(pictures: Tensor) -> list[Tensor]:
    """Return the eight mirrored and rotated views of images [B, 3, S, S], in lesiontk's order."""
    return [
        square.flip([axis for axis, turned in ((2, down), (3, right)) if turned])
        for square in (pictures, pictures.transpose(2, 3))
        for down in (False, True)
        for right in (False, True)
    ]


def read_task(spec: dict[str, Any]) -> Task:
    """Return the task of a network's description; older ones state only its name."""
    definition = spec["extra"].get("task_definition")
    return Task.from_document(definition) if definition else load_task(spec["task"])


def show_scores(scores: dict[str, float]) -> str:
    """Return validation scores in one line."""
    return ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
