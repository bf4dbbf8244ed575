"""What each part of distillation is worth to a small student, on validation, with three seeds.

    python benchmarks/distill_losses.py --data HAM10000_FOLDER [--workspace DIR] [--rows FILE]

For each seed the network of `cnn_7class` is trained at a small size for a few epochs, then trained
further in each of VARIANTS, everything else equal: from labels alone (the same training, in which
the soft targets have a weight of 1e-6), from soft targets of plain and of augmented images, and
from the latter with a loss of features, of relations, and with the teacher's mean over four
mirrored views. *Large pictures* are augmented in the teacher's size (`data.training_size`), in
which it sees them; otherwise it sees the student's, enlarged. The teacher is the published float
network of `efficientnet_lite0_7class`, or --teacher, of the same split. The test split is never
read.

One JSON row a run, with its seconds, is appended to FILE as soon as it is done; started again, the
script leaves out the runs whose rows are there, and a killed training resumes after its last epoch.
The Markdown table beside it has the mean and the range over seeds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import click

from lesiontk.api.progress import make_progress
from lesiontk.backends import open_engine
from lesiontk.recipe import override_recipe, read_recipe
from lesiontk.records import ModelFacts
from lesiontk.store import Store
from lesiontk.workflow.train import train_recipe

HERE = Path(__file__).parent
TEACHER = HERE / "engines/efficientnet_lite0_7class/keras_float32.keras"
AUGMENTED = {"views": "augmented"}
LARGE = "large"
VARIANTS: dict[str, dict[str, Any]] = {
    "none": {"weight": 1e-6},
    "none, large pictures": {"weight": 1e-6, LARGE: True},
    "plain": {},
    "plain, large pictures": {LARGE: True},
    "augmented": AUGMENTED,
    "augmented, large pictures": {**AUGMENTED, LARGE: True},
    "augmented + feature": {**AUGMENTED, "losses": ["feature"]},
    "augmented + relational": {**AUGMENTED, "losses": ["relational"]},
    "augmented + four views": {**AUGMENTED, "teacher_views": 4},
}
METRICS = ("balanced_accuracy", "macro_auc", "recall[mel]", "accuracy", "log_loss")


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="HAM10000's folder.")
@click.option("--teacher", type=click.Path(exists=True, path_type=Path), default=TEACHER)
@click.option("--workspace", type=click.Path(path_type=Path), default="lesiontk-workspace")
@click.option(
    "--rows", type=click.Path(path_type=Path), default=HERE / "results/distill_losses.jsonl"
)
@click.option("--image-size", default=64, show_default=True)
@click.option(
    "--epochs", default=5, show_default=True, help="Of the student alone, and then taught."
)
@click.option("--seeds", default=3, show_default=True)
@click.option("--variant", "variants", multiple=True, type=click.Choice(list(VARIANTS)))
@click.option("--set", "overrides", multiple=True, help="A key of the recipe, section.key=value.")
def measure(
    data: Path | None,
    teacher: Path,
    workspace: Path,
    rows: Path,
    image_size: int,
    epochs: int,
    seeds: int,
    variants: tuple[str, ...],
    overrides: tuple[str, ...],
) -> None:
    """Train every variant with every seed that has no row yet, and write the table."""
    settings = {
        "teacher": f"{teacher.parent.name}/{teacher.name}",
        "image_size": image_size,
        "epochs": epochs,
        "overrides": list(overrides),
    }
    done = read_rows(rows, settings)
    store = Store(workspace, make_progress())
    for seed in range(1, seeds + 1):  # by seed, so that a part of the table compares fairly
        for variant in variants or VARIANTS:
            if (variant, seed) in ((row["variant"], row["seed"]) for row in done):
                continue
            row = {"variant": variant, "seed": seed, **settings}
            row |= train(store, variant, seed, data, teacher, image_size, epochs, overrides)
            with rows.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
            done.append(row)
            click.echo(f"{variant}, seed {seed}: {row['balanced_accuracy']:.3f}")
    click.echo(render(done))
    rows.with_suffix(".md").write_text(render_page(done, settings, rows.name))


def train(
    store: Store,
    variant: str,
    seed: int,
    data: Path | None,
    teacher: Path,
    image_size: int,
    epochs: int,
    overrides: Iterable[str],
) -> dict[str, Any]:
    """Return the validation scores of one run, and its seconds here."""
    training = {"epochs": epochs, "seed": seed}
    rule = {"teacher": [str(teacher.resolve())], "train": training, **VARIANTS[variant]}
    large = rule.pop(LARGE, False)
    changes: dict[str, Any] = {
        "data.image_size": image_size,
        "train.grow": [],
        "train.epochs": epochs,
        "train.seed": seed,
        "compress": [{"distill": rule}],
    }
    if large:
        with open_engine(teacher) as engine:
            changes["data.training_size"] = engine.spec.preprocessing.image_size
    if data is not None:
        changes["data.path"] = str(data.resolve())
    texts = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    recipe = override_recipe(read_recipe("cnn_7class"), [*texts, *overrides])
    start = time.perf_counter()
    facts = train_recipe(store, recipe).read_facts(ModelFacts)
    return {
        "n": facts.validation.n,
        "split_hash": facts.split_hash,
        "seconds": round(time.perf_counter() - start),
        **{
            name: facts.validation.metrics[name]
            for name in METRICS
            if name in facts.validation.metrics
        },
    }


def read_rows(file: Path, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a file that were measured with these settings."""
    lines = file.read_text().splitlines() if file.is_file() else []
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return [row for row in rows if all(row[key] == value for key, value in settings.items())]


def render(rows: list[dict[str, Any]]) -> str:
    """Return mean and range over seeds of each variant as a Markdown table."""
    names = [name for name in METRICS if name in rows[0]]
    lines = [f"| variant | seeds | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for variant in VARIANTS:
        own = [row for row in rows if row["variant"] == variant]
        if own:
            values = [[row[name] for row in own] for name in names]
            cells = [f"{mean(v):.3f} [{min(v):.3f}, {max(v):.3f}]" for v in values]
            lines.append(f"| {variant} | {len(own)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def render_page(rows: list[dict[str, Any]], settings: Mapping[str, Any], file: str) -> str:
    """Return the table with what it is of; the rows are in `file`."""
    size, epochs = settings["image_size"], settings["epochs"]
    return (
        "# What each part of distillation is worth\n\n"
        f"`cnn_7class` at {size} pixels, {epochs} epochs alone and {epochs} taught by "
        f"`{settings['teacher']}`; validation, n = {rows[0]['n']}, mean and range over seeds. "
        "*None* is trained on labels alone. *Augmented*: the teacher predicts each augmented "
        "picture, by default the student's small one, enlarged to its own size; *large pictures* "
        "are augmented in that size (`data.training_size`). Again: `python "
        "benchmarks/distill_losses.py --data HAM10000_FOLDER --teacher TEACHER`; a row "
        f"for each run: `{file}`.\n\n{render(rows)}\n"
    )


if __name__ == "__main__":
    measure()
