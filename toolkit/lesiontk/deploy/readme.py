"""The README of a bundle."""

from __future__ import annotations

from lesiontk.deploy.file_names import BUNDLE, CARD, CHECKSUMS, GOLDEN
from lesiontk.deploy.target import BundleTarget
from lesiontk.evaluate.operating_point import OperatingPoint
from lesiontk.records import EngineSpec


def render_readme(
    target: BundleTarget,
    spec: EngineSpec,
    instructions: str,
    golden: int,
    point: OperatingPoint | None,
) -> str:
    """Return the text of the bundle's README."""
    decision = "classes" if point is None else f"classes, and the decision at {point.threshold:.4g}"
    threshold_entry = "" if point is None else "threshold, "
    no_threshold = (
        "\nNo threshold was frozen for this engine: `predict` returns probabilities without a "
        "decision.\n`lesiontk bundle --threshold` sets one.\n"
        if point is None
        else ""
    )
    return f"""# {spec.recipe}, {spec.precision}, for {target.name}

{spec.notice} `{CARD}` contains the engine's evaluation and licence.
The folder needs Python {target.python} or later; it does not need lesiontk.

{instructions}

Then:

    python3 run.py self-test              # files, preprocessing, {golden} outputs, latency
    python3 run.py predict picture.jpg    # {decision}
    python3 run.py evaluate FOLDER LABELS.csv
    python3 run.py bench --json           # for `lesiontk bench --import`
    python3 run.py serve                  # http://127.0.0.1:8080/predict, /health, /metrics
    python3 run.py watch FOLDER RESULTS.sqlite
{no_threshold}
All accept `--json`. Exit codes: 0 as expected, 1 outputs differ from those expected, 2 a file is
missing, damaged or rejected, 3 a missing requirement.

| file | what |
| --- | --- |
| `{BUNDLE}` | labels, crop and resize, input, output, {threshold_entry}tolerances |
| `run.py`, the other `*.py` | the runner, with the same preprocessing and decision as lesiontk; \
`LICENSE` is theirs |
| `{GOLDEN}`, `golden/` | images with their expected outputs and prepared bytes |
| `systemd/`, `Dockerfile` | services, if the device has them |
| `{CHECKSUMS}` | `sha256sum -c {CHECKSUMS}` |

The golden images are procedural: none is from the training data.
"""


def describe_choice(precision: str, other_file: str, max_ratio: float) -> str:
    """Return the part on a choice of two engines, the second in `other_file`."""
    return (
        f"\n\nThe folder contains two engines, `{precision}` and the one in `{other_file}`. At the "
        f"first start both are built, tested and timed in turns. `{precision}` is kept only if it "
        f"passes its self-test and its latency is shown to be at most {max_ratio:g} of the "
        "other's; the other's outputs are compared with those of the full-precision network. "
        "`self-test`, `bench` and `/health` say which one was kept and why. `engine_choice.json` "
        "contains the measurements; remove it to measure again."
    )
