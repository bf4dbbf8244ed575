"""``run.py self-test``: files, preprocessing, outputs and latency against those expected."""

from __future__ import annotations

import argparse
import hashlib
import platform
import sys
from typing import TypedDict

import numpy as np

from lesiontk.deploy.runner.classifier import (
    Classifier,
    MissingRequirementError,
    describe_engine,
    import_picture,
)
from lesiontk.deploy.runner.command import Call, Outcome
from lesiontk.deploy.runner.contract import Bundle
from lesiontk.deploy.runner.documents import (
    Agreement,
    Checked,
    EngineDescription,
    Latency,
    StatusAgreement,
)
from lesiontk.deploy.runner.engine_choice import open_classifier
from lesiontk.deploy.runner.golden import compare, compare_statuses, read_golden
from lesiontk.deploy.runner.integrity import COPY, DamagedBundleError, FileCheck
from lesiontk.deploy.runner.timing import summarize, time_engine

HELP = "compare with the expected outputs"


class FilesChecked(Checked):
    """The `n` listed files, and what is wrong with the `damaged` ones."""

    n: int
    damaged: list[str]


class PicturesChecked(Checked, total=False):
    """The `n` images, and those prepared to other bytes; without Pillow the reason, `lacks`."""

    n: int
    differ: list[str]
    lacks: str


class SelfTest(TypedDict, total=False):
    """The document of the command; `latency_ms` is left out where nothing was timed."""

    bundle: str
    machine: str
    python: str
    numpy: str
    files: FilesChecked
    pictures: PicturesChecked
    pillow: str | None
    answers: Agreement
    input_checks: StatusAgreement
    latency_ms: Latency
    engine: EngineDescription
    as_expected: bool


class SelfTestError(Exception):
    """The outputs differ from those expected, so nothing is answered."""

    exit_code = 1


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    parser.add_argument("--rounds", type=int, default=50, help="number of timed images, 0 for none")


def run(call: Call) -> Outcome:
    """Return the results of the self-test."""
    bundle, options = call.bundle, call.options
    for name in (bundle.engine_file, bundle.golden.file):
        if not (bundle.folder / name).is_file():
            raise DamagedBundleError(f"{name} is missing. {COPY}")
    with open_classifier(bundle, options.runtime, options.threads) as classifier:
        found = test_bundle(classifier, call.files, options.rounds)
    return Outcome(found, render(found), 0 if found["as_expected"] else 1)


def test_bundle(classifier: Classifier, files: FileCheck, rounds: int) -> SelfTest:
    """Return the results; latency is timed over `rounds` images, if any."""
    bundle = classifier.bundle
    images, expected, statuses = read_golden(bundle)
    found: SelfTest = {
        "bundle": bundle.name,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "files": {
            "n": len(files.listed),
            "damaged": list(files.damaged),
            "as_expected": files.as_expected,
        },
        "pictures": check_pictures(bundle),
        "pillow": getattr(sys.modules.get("PIL"), "__version__", None),
        "answers": compare(expected, classifier.infer(images), bundle.golden),
        "input_checks": compare_statuses(statuses, classifier, images),
    }
    if rounds:
        samples = time_engine(classifier.engine, images, rounds, max(1, rounds // 10))
        found["latency_ms"] = summarize(samples)
    found["engine"] = classifier.description
    found["as_expected"] = not list_faults(found)
    return found


def require_expected_outputs(classifier: Classifier, files: FileCheck) -> None:
    """Raise `SelfTestError` unless this machine prepares and answers as expected."""
    faults = list_faults(test_bundle(classifier, files, rounds=0))
    if faults:
        raise SelfTestError(
            f"{', '.join(faults)} not as expected on this machine, so no image is classified; "
            "`run.py self-test` shows the differences"
        )


def list_faults(found: SelfTest) -> list[str]:
    """Return the checks that failed; without Pillow that of the pictures is not known."""
    checks = {
        "files": found["files"]["as_expected"],
        "pictures": found["pictures"]["as_expected"],
        "answers": found["answers"]["as_expected"],
        "input_checks": found["input_checks"]["as_expected"],
    }
    return [name for name, passed in checks.items() if passed is False]


def check_pictures(bundle: Bundle) -> PicturesChecked:
    """Return the images whose decoding, crop and resize give other bytes than expected.

    Without Pillow none is read: `as_expected` is then None, and `lacks` is the reason.
    """
    try:
        picture = import_picture()
    except MissingRequirementError as error:
        return {"n": 0, "differ": [], "lacks": str(error), "as_expected": None}
    differ = []
    for name, expected in sorted(bundle.golden.pictures.items()):
        image = picture.read_picture(bundle.folder / name)
        pixels = np.ascontiguousarray(picture.prepare_picture(image, bundle.preprocessing))
        if hashlib.sha256(pixels.tobytes()).hexdigest() != expected:
            differ.append(name)
    return {"n": len(bundle.golden.pictures), "differ": differ, "as_expected": not differ}


def render(found: SelfTest) -> str:
    """Return the results as text."""
    outputs, engine = found["answers"], found["engine"]
    drift = outputs["mean_drift"]
    files = found["files"]
    lines = [
        "{bundle} on {machine}, Python {python}".format(**found),
        *describe_engine(engine),
        "files: {}".format("; ".join(files["damaged"]) or "all {n} intact".format(**files)),
        "pictures: " + describe_pictures(found["pictures"]),
        "outputs: the same class in {:.1%} of {n} images (at least {min_agreement:.1%}), mean "
        "difference of a probability {} (at most {max_mean_drift})".format(
            outputs["agreement"], "not a number" if drift is None else round(drift, 6), **outputs
        ),
    ]
    if found["input_checks"]["n"]:
        lines.append(
            "input checks: the same for {agreement:.1%} of {n} images (at least "
            "{min_agreement:.1%})".format(**found["input_checks"])
        )
    if "latency_ms" in found:
        lines.append("latency: median {median:.2f} ms, p90 {p90:.2f} ms, n = {n}".format(
            **found["latency_ms"]
        ))  # fmt: skip
    lines.append("as expected" if found["as_expected"] else "NOT AS EXPECTED")
    return "\n".join(lines)


def describe_pictures(pictures: PicturesChecked) -> str:
    """Return the result of decoding, crop and resize."""
    if "lacks" in pictures:
        return "not checked, and `predict` cannot run: {lacks}".format(**pictures)
    if pictures["differ"]:
        return ", ".join(pictures["differ"]) + " differ"
    return "all {n} prepared to the same bytes".format(**pictures)
