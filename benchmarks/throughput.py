"""Measure where an epoch of training spends its time on this machine, and what bfloat16 changes.

    python benchmarks/throughput.py [RECIPE…] [--rounds 5] [--steps 4] [--publish]

For each recipe, at its own size and batch, in float32 and in mixed bfloat16, with random pictures
in memory as `prepare` leaves them (nothing is decoded in an epoch: `input_pipeline.py` measures
decoding):

    read       the pictures of a batch are gathered
    begin      from nothing to an epoch's first batch (traced in the first epoch, the warm-up)
    feed       the batches after it, on all cores with nothing else to do: read and augment
    forward    outputs in training mode
    gradients  outputs and gradients
    step       a whole step, on one batch in memory
    fed step   the same with batches of the pipeline
    validation scores, as after each epoch

Backward is `gradients` less `forward`, the optimizer `step` less `gradients`, and waiting `fed
step` less `step` and `begin`, of the same round: noise can make a small one negative. `begin` comes
once an epoch and is spread here over the images of a round. Parts and precisions take turns in each
round, so that what else the machine does is spread over all; the first round is warm-up. Figures
are medians over rounds, in ms an image; a ratio is the median of those of paired rounds, with the
smallest and the largest. With --publish it writes results/throughput.md and .json (raw).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from lesiontk.data.images import ImageSet
from lesiontk.models import ARCHITECTURES
from lesiontk.models.architecture import build_model
from lesiontk.recipe import Recipe, read_recipe
from lesiontk.records import Preprocessing
from lesiontk.system.frameworks import import_keras, import_tensorflow
from lesiontk.system.machine import describe_machine
from lesiontk.train.gradient_accumulation import accumulate_gradients
from lesiontk.train.loop import predict_probabilities
from lesiontk.train.optimizer import make_optimizer
from lesiontk.train.training_set import TrainingSet, make_training_set

RESULTS = Path(__file__).parent / "results"
RECIPES = ("cnn_7class", "vgg16_7class", "resnet152v2_7class", "efficientnet_lite0_7class",
           "efficientnet_lite2_7class")  # fmt: skip
PRECISIONS = ("float32", "mixed_bfloat16")
CLASSES = 7
TOOLS = ("tensorflow", "tf_keras", "numpy")

Samples = dict[str, list[float]]
"""Part -> ms an image of each round, warm-up left out; ``first step`` -> seconds, once."""


@click.command()
@click.argument("recipes", nargs=-1)
@click.option("--rounds", type=click.IntRange(2), default=5, help="Of each, the warm-up included.")
@click.option("--steps", type=click.IntRange(1), default=4, help="Batches of a part in a round.")
@click.option("--publish", is_flag=True, help="Write the results beside the others.")
def measure(recipes: tuple[str, ...], rounds: int, steps: int, publish: bool) -> None:
    """Print the parts of an epoch of RECIPES; by default of the five architectures."""
    measured: dict[str, dict[str, Any]] = {}
    for name in recipes or RECIPES:
        recipe = read_recipe(name)
        measured[name] = {
            "image_size": recipe.data.image_size,
            "batch_size": recipe.train.batch_size,
            "mixed_precision": recipe.train.mixed_precision,
            "samples": measure_recipe(recipe, rounds, steps),
        }
        import_keras().backend.clear_session()
        click.echo(render({name: measured[name]}))
    machine = describe_machine().to_document()
    document = {
        "machine": machine,
        "tools": {name: metadata.version(name) for name in TOOLS},
        "rounds": rounds - 1,
        "steps_a_round": steps,
        "recipes": measured,
    }
    if publish:
        (RESULTS / "throughput.json").write_text(json.dumps(document, indent=1) + "\n")
        (RESULTS / "throughput.md").write_text(
            f"# Where an epoch of training spends its time\n\nOn {machine['processor']}, "
            f"{machine['cores']} cores; n = {rounds - 1} rounds of {steps} batches. Raw times: "
            f"`throughput.json`; what is measured: `../throughput.py`.\n\n{render(measured)}\n"
        )


def measure_recipe(recipe: Recipe, rounds: int, steps: int) -> dict[str, Samples]:
    """Return precision -> its samples."""
    section = recipe.train.model_copy(update={"grow": ()})
    images = make_images(recipe, section.batch_size * (steps + 1))
    training_set = make_training_set(images, section)
    samples: dict[str, Samples] = {}
    parts = {}
    for precision in PRECISIONS:
        samples[precision] = {}
        parts[precision] = prepare_parts(recipe, training_set, precision, steps, samples[precision])
    for number in range(rounds):
        turned = PRECISIONS if number % 2 else PRECISIONS[::-1]
        for part in parts[PRECISIONS[0]]:
            for precision in turned:
                milliseconds = parts[precision][part](number)
                if number:
                    samples[precision].setdefault(part, []).append(milliseconds)
    return samples


def make_images(recipe: Recipe, training: int) -> ImageSet:
    """Return random pictures of the recipe's size: `training`, and two batches for validation."""
    size, batch = recipe.data.image_size, recipe.train.batch_size
    draw = np.random.default_rng(0)
    count = training + 2 * batch
    ids = tuple(str(i) for i in range(count))
    pixels = draw.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    height = recipe.data.training_size or size
    width = round(height * recipe.data.training_aspect)
    wide = draw.integers(0, 256, (training, height, width, 3), dtype=np.uint8)
    return ImageSet(
        pixels=pixels,
        targets=np.arange(count) % CLASSES,
        image_ids=ids,
        groups=ids,
        hashes=ids,
        subsets=tuple("train" if i < training else "validation" for i in range(count)),
        labels=tuple("abcdefg"),
        task="seven_class",
        critical="a",
        preprocessing=Preprocessing(size),
        split_hash="0" * 64,
        training_pixels=wide if (height, width) != (size, size) else None,
    )


def prepare_parts(
    recipe: Recipe, training_set: TrainingSet, precision: str, steps: int, samples: Samples
) -> Mapping[str, Callable[[int], float]]:
    """Return part -> a function of the round that runs it and returns its ms an image.

    Adds the seconds of the first step to `samples`.
    """
    tf, keras, section = import_tensorflow(), import_keras(), training_set.section
    batch, images = section.batch_size, training_set.images
    keras.mixed_precision.set_global_policy(precision)
    try:
        model = build_model(
            ARCHITECTURES.get(recipe.model.architecture),
            image_size=recipe.data.image_size,
            classes=CLASSES,
            dropout=recipe.model.dropout,
        )
    finally:
        keras.mixed_precision.set_global_policy("float32")
    training = accumulate_gradients(model, section.micro_batches)
    loss = training_set.make_loss()
    optimizer = make_optimizer(section, training, section.learning_rate)
    training.compile(optimizer=optimizer, loss=loss)
    pictures, places = images.training_source()
    rows = training_set.rows
    validation = images.indices("validation")

    one = next(iter(training_set.make_batches(0)))
    repeated = tf.data.Dataset.from_tensors(one).repeat(steps)

    def fit(batches: Any) -> None:
        training.fit(batches, epochs=1, steps_per_epoch=steps, verbose=0)

    start = time.perf_counter()
    training.fit(repeated.take(1), epochs=1, steps_per_epoch=1, verbose=0)
    samples["first step"] = [time.perf_counter() - start]

    @tf.function
    def forward(pixels: Any) -> Any:
        return training(pixels, training=True)

    @tf.function
    def differentiate(pixels: Any, targets: Any) -> Any:
        with tf.GradientTape() as tape:
            value = tf.reduce_mean(loss(targets, training(pixels, training=True)))
        # Summed, because gradients that nothing reads are not computed.
        gradients = tape.gradient(value, training.trainable_variables)
        return tf.add_n([tf.reduce_sum(tf.convert_to_tensor(part)) for part in gradients])

    def read(_: int) -> None:
        for number in range(steps):
            pictures[places[rows[number * batch : (number + 1) * batch]]]  # gathers, as a copy

    def begin(number: int) -> None:
        next(iter(training_set.make_batches(number)))

    def feed(number: int) -> float:
        batches = iter(training_set.make_batches(number).take(steps + 1))
        next(batches)
        return clock(lambda: list(batches)) / (steps * batch)

    def repeat(work: Callable[..., Any], *arguments: Any) -> None:
        for _ in range(steps):
            work(*arguments).numpy()

    def each(work: Callable[[int], Any], images: int = steps * batch) -> Callable[[int], float]:
        return lambda number: clock(lambda: work(number)) / images

    return {
        "read": each(read),
        "begin": each(begin),
        "feed": feed,
        "forward": each(lambda _: repeat(forward, one[0])),
        "gradients": each(lambda _: repeat(differentiate, *one)),
        "step": each(lambda _: fit(repeated)),
        "fed step": each(lambda number: fit(training_set.make_batches(number).take(steps))),
        "validation": each(
            lambda _: predict_probabilities(model, images.pixels, validation, batch),
            len(validation),
        ),
    }


def clock(work: Callable[[], Any]) -> float:
    """Return the milliseconds that `work` takes."""
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


ROWS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("begin", "begin", ()),
    ("read", "read", ()),
    ("feed: read and augment", "feed", ()),
    ("forward", "forward", ()),
    ("backward", "gradients", ("forward",)),
    ("optimizer", "step", ("gradients",)),
    ("step", "step", ()),
    ("waiting for images", "fed step", ("step", "begin")),
    ("validation", "validation", ()),
)
"""Title, part, and the parts that are subtracted from it."""


def render(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a Markdown table for each recipe."""
    lines = []
    for name, told in measured.items():
        samples = told["samples"]
        lines += [
            f"## {name}",
            "",
            f"{told['image_size']} pixels, batches of {told['batch_size']}; the recipe computes in "
            f"{PRECISIONS[told['mixed_precision']]}. Once a training, the first step takes "
            f"{samples['float32']['first step'][0]:.1f} s in float32 and "
            f"{samples['mixed_bfloat16']['first step'][0]:.1f} s in bfloat16.",
            "",
            "| ms an image | float32 | bfloat16 | float32 / bfloat16 [least, most] |",
            "|---|---:|---:|---:|",
        ]
        for title, part, less in ROWS:
            plain, mixed = (subtract(samples[p], part, less) for p in PRECISIONS)
            ratio = "" if less else show_ratio(plain / mixed)
            lines.append(f"| {title} | {np.median(plain):.2f} | {np.median(mixed):.2f} | {ratio} |")
        lines.append("")
    return "\n".join(lines)


def subtract(samples: Samples, part: str, less: Sequence[str]) -> NDArray[np.float64]:
    """Return a part in each round, without the parts `less` of it."""
    values = np.array(samples[part])
    for other in less:
        values = values - np.array(samples[other])
    return values


def show_ratio(ratios: NDArray[np.float64]) -> str:
    """Return the median and the range."""
    return f"{np.median(ratios):.2f} [{ratios.min():.2f}, {ratios.max():.2f}]"


if __name__ == "__main__":
    measure()
