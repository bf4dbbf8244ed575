"""A commented example of a search space."""

from __future__ import annotations

import os
from pathlib import Path

from lesiontk.errors import UsageError
from lesiontk.files.whole_files import write_whole

EXAMPLE = """\
# A space of recipes for `lesiontk search`. Every key but `vary` may be left out.

# The recipe that all candidates start from, and the engine, as BACKEND:PRECISION. Both may vary.
recipe: cnn_7class
target: tflite:int8

# Keys that all candidates share, by the names of `lesiontk recipe show`.
set:
  train.epochs: 30

# Keys that vary: a list of values, or numbers from low to high.
vary:
  target: [tflite:int8, tflite:float16]
  # A chain of compression; the empty one compresses nothing.
  compress:
    - []
    - [prune: {}]
    - [prune: {}, qat: {}]
  # An option of a technique applies where the chain has the technique.
  compress.prune.keep_macs: {low: 0.3, high: 0.7, step: 0.2}
  calibration.observer: [min_max, percentile]
  # Also possible: recipe, model.architecture, data.image_size, and
  # train.learning_rate: {low: 3.0e-4, high: 3.0e-3, log: true}

# What an engine must meet, on validation images and on this machine. `parent` is the trained
# network as a float32 engine of the same back end. Metrics at a threshold are cross-fitted.
constraints:
  - p90_ms <= 5
  - size_mb <= 2
  - sensitivity[malignant] >= parent - 0.03

# What is optimized: metrics, p90_ms, median_ms, size_mb or peak_memory_mb. Several give a Pareto
# front; the first decides in `lesiontk search best`.
objectives: [balanced_accuracy, p90_ms]

# tpe, nsga2 (several objectives), random, or grid (every combination).
sampler: tpe
# hyperband ends trainings that fall behind; it needs one objective that training measures.
pruner: none
trials: 24
seed: 0
"""


def write_space(file: Path) -> Path:
    """Write the example to a new file, and return its path. Raises `UsageError` if it exists."""
    if os.path.lexists(file):
        raise UsageError(f"{file} exists; specify a new file.")
    if not file.parent.is_dir():
        raise UsageError(f"the folder {file.parent} does not exist; expected an existing one.")
    write_whole({file: EXAMPLE.encode()})
    return file
