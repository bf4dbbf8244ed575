"""The throughput of decoding, of the input pipeline and of the training step.

    python benchmarks/input_pipeline.py RECIPE [--data DIR] [--weights …] [--workspace DIR]

For the recipe's images, network and train section it measures, in rounds,

- decode: images a second from file to prepared pixels (`decode_many` and `preprocess_image`, as the
  stage `prepare` does once), on all cores; each round decodes other images;
- feed: images a second from the prepared array through augmentation, as training draws them, when
  nothing else runs;
- step, fed: images a second of training with that feed;
- step, one batch: the same steps on one batch that lies in memory, so that there is nothing to
  wait for. Rounds of both are timed in turns.

The share of a fed step that is spent waiting is 1 - (time on one batch) / (time fed), a pair of
rounds at a time. Feeding competes with the step for the processor where there is no GPU, which
counts as waiting, too. As images are decoded once and not in each epoch, the feed is bound by
decoding only if it is slower: "feed / decode" is the mean rate of one by that of the other.

A round begins as an epoch does, with an empty pipeline; give --steps near an epoch's for its share.
Means with 95 % intervals (Student's t over the rounds). The first round of each is warm-up and not
counted. Writes results/input_pipeline_RECIPE.md and .json (raw seconds) with --publish.
"""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import numpy as np
from scipy import stats

from lesiontk.api.progress import make_progress
from lesiontk.cli.session import RecipeOptions, load_recipe, recipe_options
from lesiontk.data.images import PreparedImages, open_images
from lesiontk.data.preprocess import preprocess_image
from lesiontk.data.reader import ImageReader, decode_many
from lesiontk.errors import UsageError
from lesiontk.models import ARCHITECTURES
from lesiontk.models.architecture import build_model
from lesiontk.recipe import Recipe
from lesiontk.records import Artefact, ImageRecord
from lesiontk.stages.inspect_images import data_root
from lesiontk.store import Store
from lesiontk.system.frameworks import import_keras, import_tensorflow
from lesiontk.system.machine import describe_machine
from lesiontk.train.gradient_accumulation import accumulate_gradients
from lesiontk.train.optimizer import make_optimizer
from lesiontk.train.training_set import TrainingSet, make_training_set
from lesiontk.workflow.train import build_data

RESULTS = Path(__file__).parent / "results"
TOOLS = ("tensorflow", "tf_keras", "numpy", "Pillow", "opencv-python-headless")

Seconds = list[float]


@click.command()
@click.argument("recipe", default="demo")
@recipe_options
@click.option("--workspace", type=click.Path(path_type=Path), default="lesiontk-workspace")
@click.option("--rounds", type=click.IntRange(2), default=11, help="Of each, the warm-up included.")
@click.option("--steps", type=click.IntRange(1), default=30, help="Batches of a round.")
@click.option("--decoded", type=click.IntRange(1), default=200, help="Images decoded in a round.")
@click.option("--publish", is_flag=True, help="Write the results beside the others.")
def measure_pipeline(
    recipe: str,
    options: RecipeOptions,
    workspace: Path,
    rounds: int,
    steps: int,
    decoded: int,
    publish: bool,
) -> None:
    """Print how fast RECIPE's images are decoded, fed and trained on."""
    # At the size that most of the training has.
    full_size = replace(options, overrides=(*options.overrides, "train.grow=[]"))
    chosen = load_recipe(recipe, full_size)
    store = Store(workspace, make_progress())
    images = build_data(store, chosen, "images")
    training_set = make_training_set(open_images(images), chosen.train)
    if training_set.steps < steps:
        raise UsageError(
            f"an epoch has {training_set.steps} steps; expected --steps of at most as many."
        )
    batch = chosen.train.batch_size
    samples: dict[str, tuple[int, Seconds]] = {
        "decode": (decoded, time_decoding(store, images, chosen, rounds, decoded)),
        "feed": (steps * batch, time_feed(training_set, rounds, steps)),
    }
    fed, cached = time_steps(training_set, chosen, rounds, steps)
    samples["step, fed"] = (steps * batch, fed)
    samples["step, one batch"] = (steps * batch, cached)
    machine = describe_machine().to_document()
    devices = [device.device_type for device in list_devices()]
    document = {
        "recipe": chosen.model_dump(mode="json", exclude={"data": {"path"}, "model": {"weights"}}),
        "machine": machine,
        "devices": devices,
        "tools": {name: metadata.version(name) for name in TOOLS},
        "images_a_round": {name: images for name, (images, _) in samples.items()},
        "seconds": {name: seconds for name, (_, seconds) in samples.items()},
    }
    text = render_table(samples)
    click.echo(text)
    if publish:
        RESULTS.mkdir(exist_ok=True)
        name = f"input_pipeline_{chosen.name}"
        (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
        (RESULTS / f"{name}.md").write_text(
            f"# Input pipeline of {chosen.name}\n\nOn {machine['processor']}, "
            f"{machine['cores']} cores, {', '.join(devices)}; "
            f"{chosen.data.image_size} pixels, batches of {batch}. Raw times: `{name}.json`; what "
            f"is measured: `../input_pipeline.py`.\n\n{text}\n"
        )


def time_decoding(
    store: Store, images: Artefact, recipe: Recipe, rounds: int, count: int
) -> Seconds:
    """Return the seconds of each round of decoding `count` images, other ones each time."""
    split = store.parent(images, "split")
    with split.file("split.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    order = np.resize(np.random.default_rng(0).permutation(len(rows)), rounds * count)
    records = [
        ImageRecord(rows[i]["image_id"], rows[i]["diagnosis"], rows[i]["location"]) for i in order
    ]
    preprocessing = images.read_facts(PreparedImages).preprocessing
    dataset = {role: store.parent(images, role) for role in images.manifest.parents}
    with ImageReader(data_root(recipe.data.path, dataset)) as reader:

        def decode(number: int) -> None:
            part = records[number * count : (number + 1) * count]
            for _ in decode_many(
                reader,
                part,
                workers=os.cpu_count() or 1,
                transform=lambda image: preprocess_image(image, preprocessing),
                max_failures=0,
            ):
                pass

        return [clock(decode, number) for number in range(rounds)]


def time_feed(training_set: TrainingSet, rounds: int, steps: int) -> Seconds:
    """Return the seconds of each round of drawing `steps` batches, from an epoch of its own."""

    def draw(epoch: int) -> None:
        for _ in training_set.make_batches(epoch).take(steps):
            pass

    return [clock(draw, epoch) for epoch in range(rounds)]


def time_steps(
    training_set: TrainingSet, recipe: Recipe, rounds: int, steps: int
) -> tuple[Seconds, Seconds]:
    """Return the seconds of each round of training, fed and on one batch, in turns."""
    tf, keras = import_tensorflow(), import_keras()
    keras.mixed_precision.set_global_policy(
        "mixed_bfloat16" if training_set.section.mixed_precision else "float32"
    )
    model = build_model(
        ARCHITECTURES.get(recipe.model.architecture),
        image_size=training_set.images.preprocessing.image_size,
        classes=len(training_set.images.labels),
        dropout=recipe.model.dropout,
    )
    accumulating = accumulate_gradients(model, training_set.section.micro_batches)
    optimizer = make_optimizer(training_set.section, model, training_set.section.learning_rate)
    accumulating.compile(optimizer=optimizer, loss=training_set.make_loss())
    one = next(iter(training_set.make_batches(0)))
    repeated = tf.data.Dataset.from_tensors(one).repeat(steps)

    def train(batches: Any) -> None:
        accumulating.fit(batches, epochs=1, steps_per_epoch=steps, verbose=0)

    def train_fed(epoch: int) -> None:
        train(training_set.make_batches(epoch).take(steps))

    fed, cached = [], []
    for epoch in range(rounds):
        fed.append(clock(train_fed, epoch))
        cached.append(clock(train, repeated))
    return fed, cached


def list_devices() -> list[Any]:
    """Return what TensorFlow computes on."""
    return list(import_tensorflow().config.list_physical_devices())


def clock(work: Callable[[Any], None], argument: Any) -> float:
    """Return the seconds that `work` takes."""
    start = time.perf_counter()
    work(argument)
    return time.perf_counter() - start


def render_table(samples: dict[str, tuple[int, Seconds]]) -> str:
    """Return the rates and the share of waiting as a Markdown table; warm-up left out."""
    lines = ["| | images/s, mean [95 %] | rounds | images a round |", "|---|---|---|---|"]
    for name, (images, seconds) in samples.items():
        rates = [images / taken for taken in seconds[1:]]
        lines.append(f"| {name} | {describe_mean(rates, 0)} | {len(rates)} | {images} |")
    pairs = zip(samples["step, fed"][1][1:], samples["step, one batch"][1][1:], strict=True)
    waiting = [100 * (1 - cached / fed) for fed, cached in pairs]
    ratio = rate(samples["feed"]) / rate(samples["decode"])
    return "\n".join(
        [
            *lines,
            "",
            f"Share of a fed step spent waiting for images: {describe_mean(waiting, 1)} % "
            f"(n = {len(waiting)} pairs of rounds). Feed / decode: {ratio:.2f}.",
        ]
    )


def rate(sample: tuple[int, Seconds]) -> float:
    """Return the mean images a second, warm-up left out."""
    images, seconds = sample
    return float(np.mean([images / taken for taken in seconds[1:]]))


def describe_mean(values: Sequence[float], digits: int) -> str:
    """Return the mean with its interval, which two values at least must give."""
    mean = f"{np.mean(values):,.{digits}f}"
    if len(values) < 2:
        return f"{mean} [no interval of one round]"
    half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    low, high = np.mean(values) - half, np.mean(values) + half
    return f"{mean} [{low:,.{digits}f}, {high:,.{digits}f}]"


if __name__ == "__main__":
    measure_pipeline()
