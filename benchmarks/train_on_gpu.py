"""Train the networks of recipes in PyTorch, side by side on a GPU that TensorFlow cannot use.

Where lesiontk is installed:

    python benchmarks/train_on_gpu.py start RECIPE --images IMAGES --out START.keras
    python benchmarks/train_on_gpu.py pack IMAGES PACK

Where the GPU is, with PyTorch, NumPy, h5py, Pillow, click, PyYAML and pydantic, and lesiontk's
folder `toolkit` in PYTHONPATH; TensorFlow is not needed:

    python benchmarks/train_on_gpu.py train JOBS.yaml --minutes 10

IMAGES is a folder ``images-…`` of a workspace. `lesiontk load-weights OUT.keras --model MODEL`
takes a result into the workspace as MODEL trained further, and `lesiontk import OUT.keras --recipe
RECIPE --data DIR` as the recipe's model. JOBS is a list:

    - recipe: vgg16_7class.yaml    # or what `lesiontk recipe show` writes
      start: vgg16.keras           # untrained, of ImageNet or trained
      images: pack_160             # or a folder images-…
      out: vgg16_160.keras
      teachers: [lite0.keras, resnet.keras]  # none by default
      temperature: 2.0             # of the teachers' soft targets
      weight: 0.7                  # of the soft targets beside the labels
      teacher_views: 4             # mirrored and rotated views whose mean they predict; 1
      losses: [feature:0.5, relational]  # between pooled features; of the first teacher; none

Each network is trained by the recipe's section `train`, as lesiontk trains it, and on the views of
its images that the teachers see, too, with these differences. No epoch is chosen by its validation
score, so `patience` has no effect: what is left are the weights (or their averages) of the last,
whose BatchNormalization statistics are then measured anew. A batch is never split into
`micro_batches`. A GPU computes in bfloat16, a CPU in float32. With --minutes the schedule follows
the clock where that is faster than the epochs, so each network ends it in time.

With 12 minutes of one large GPU, first what CPUs cannot reach:

    order  network             px   G multiply-adds  CPU seconds
    1      resnet152v2         160        5.6           0.45
           resnet152v2         224       10.9           0.79
    2      vgg16               160        7.8           0.46
           vgg16               224       15.4           0.91
    3      efficientnet_lite2  260        0.86          0.34
    4      efficientnet_lite1  240        0.60          0.26
           efficientnet_lite0  224        0.38          0.19
    5      cnn                 128        0.19          0.02

Multiply-adds are of the forward pass for one image. CPU seconds are of forward and backward pass
for one image here, on one core of an Intel Xeon that others shared (float32, batches of 4, least of
3): an epoch of 7,000 images of resnet152v2 at 224 pixels takes 92 minutes. Start with 160 pixels,
and with 224 where time is left. The order is that of need, not of measured time on a GPU.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from pathlib import Path

import click

from lesiontk.errors import LesionTKError
from lesiontk.recipe import read_recipe

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def cli() -> None:
    """Train the networks of recipes in PyTorch."""


@cli.command()
@click.argument("recipe")
@click.option("--images", type=FOLDER, required=True, help="A folder images-… of a workspace.")
@click.option("--out", type=FILE, required=True, help="The .keras file to write.")
def start(recipe: str, images: Path, out: Path) -> None:
    """Write the network of RECIPE with its initial weights."""
    from gpu.start import write_start

    write_start(read_recipe(recipe), images, out)


@cli.command()
@click.argument("images", type=FOLDER)
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
def pack(images: Path, out: Path) -> None:
    """Write the training and validation pictures of IMAGES into the folder OUT, in parts."""
    from gpu.pack import pack_images

    for file in pack_images(images, out):
        click.echo(f"{file} {file.stat().st_size / 1e6:.1f} MB")


@cli.command()
@click.argument("jobs", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="For all jobs.")
def train(jobs: Path, minutes: float | None) -> None:
    """Train the networks of the list JOBS side by side, a process for each."""
    from gpu.jobs import read_jobs

    deadline = time.monotonic() + 60 * minutes if minutes else None
    listed = read_jobs(jobs)
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=train_one, args=(jobs, number, deadline))
        for number in range(len(listed))
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    failed = [str(j.out) for j, p in zip(listed, processes, strict=True) if p.exitcode]
    if failed:
        raise click.ClickException(f"not written: {', '.join(failed)}")


def train_one(jobs: Path, number: int, deadline: float | None) -> None:
    """Train one job of a list; the process ends with 1 if it fails."""
    import torch
    from gpu.jobs import read_jobs
    from gpu.train import Trainer

    listed = read_jobs(jobs)
    name = listed[number].out.stem
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // len(listed)))
    try:
        Trainer(
            listed[number], deadline=deadline, report=lambda text: click.echo(f"{name}: {text}")
        ).run()
    except (LesionTKError, click.ClickException) as error:
        click.echo(f"{name}: {error}", err=True)
        sys.exit(1)


def main() -> None:
    try:
        cli()
    except LesionTKError as error:
        raise SystemExit(f"Error: {error}") from error


if __name__ == "__main__":
    main()
