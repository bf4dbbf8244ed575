"""Interleaved single-image latency of several engines in a separate process.

Run as ``python -m lesiontk.bench.latency REQUEST.json RESULT.json``. A separate process has no
thread pools or caches of earlier work; interleaving distributes the machine's other load over all
engines equally.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends.backend import Engine
from lesiontk.backends.foreign import RECIPE, ForeignDescription
from lesiontk.bench.exit_code import exit_as_lesiontk


def time_engines(
    engines: dict[str, str],
    images: NDArray[np.uint8],
    *,
    rounds: int,
    warmup: int,
    threads: int,
    provider: str | None = None,
    foreign: ForeignDescription | None = None,
) -> tuple[dict[str, list[float]], dict[str, list[dict[str, Any]]], dict[str, int]]:
    """Return engine name -> latencies in ms, one per round; its runtime; the size of its images.

    `engines` maps names to files. Each round runs every engine on the same image, at its own size,
    and starts with another engine.
    """
    from lesiontk.backends import open_any
    from lesiontk.data.crop import crop_and_resize

    def open_engine(path: str) -> Engine:
        return open_any(Path(path), foreign, threads=threads, provider=provider)

    samples: dict[str, list[float]] = {name: [] for name in engines}
    with ExitStack() as stack:
        opened = [(name, stack.enter_context(open_engine(path))) for name, path in engines.items()]
        sizes = {name: engine.spec.preprocessing.image_size for name, engine in opened}
        fitted = {
            size: np.stack([crop_and_resize(image, size, "stretch") for image in images])
            for size in set(sizes.values())
        }
        for name, engine in opened:
            image = fitted[sizes[name]][:1]
            if engine.spec.recipe == RECIPE:
                engine.infer(image)  # the latency is the same with logits
            else:
                engine.predict(image)  # a damaged engine is not timed
        for turn in range(warmup + rounds):
            first = turn % len(opened)
            for name, engine in opened[first:] + opened[:first]:
                image = fitted[sizes[name]][turn % len(images)][np.newaxis]
                start = time.perf_counter_ns()
                engine.infer(image)
                elapsed = (time.perf_counter_ns() - start) / 1e6
                if turn >= warmup:
                    samples[name].append(elapsed)
        execution = {
            name: [part.to_document() for part in engine.describe_execution()]
            for name, engine in opened
        }
    return samples, execution, sizes


def main(request: Path, result: Path) -> None:
    """Read a request document, time the engines, write the samples and the runtimes."""
    document: dict[str, Any] = json.loads(request.read_text())
    # TensorFlow reads its number of threads before its first operation.
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(document["threads"])
    os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    samples, execution, sizes = time_engines(
        document["engines"],
        np.load(document["images"]),
        rounds=document["rounds"],
        warmup=document["warmup"],
        threads=document["threads"],
        provider=document["provider"],
        foreign=read_foreign(document["foreign"]),
    )
    result.write_text(json.dumps({"samples": samples, "execution": execution, "sizes": sizes}))


def read_foreign(document: dict[str, Any] | None) -> ForeignDescription | None:
    """Return a request's description of files without one."""
    if document is None:
        return None
    return ForeignDescription(tuple(document["labels"]), document["pixels"])


if __name__ == "__main__":
    with exit_as_lesiontk():
        main(Path(sys.argv[1]), Path(sys.argv[2]))
