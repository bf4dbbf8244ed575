"""``run.py predict``: classify image files."""

from __future__ import annotations

import argparse
from pathlib import Path

from lesiontk.deploy.runner.classifier import answer, import_picture
from lesiontk.deploy.runner.command import Call, Outcome
from lesiontk.deploy.runner.decision import describe, escape_controls
from lesiontk.deploy.runner.documents import Answers, Failure, Prediction
from lesiontk.deploy.runner.engine_choice import open_classifier

HELP = "classify images"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE")


def run(call: Call) -> Outcome:
    """Return one prediction for each readable image, and the failures."""
    call.require_files()
    options = call.options
    predictions: list[Prediction] = []
    failures: list[Failure] = []
    picture = import_picture()  # before an engine is built, which takes minutes
    with open_classifier(call.bundle, options.runtime, options.threads) as classifier:
        for path in options.pictures:
            try:
                predictions.append(classifier.classify_file(path))
            except picture.PictureError as error:
                failures.append({"image": str(path), "message": str(error)})
    document = answer(classifier.bundle, predictions, failures)
    return Outcome(document, render(document), 2 if failures else 0)


def render(document: Answers) -> str:
    """Return the predictions as text."""
    point = document["operating_point"]
    lines = [line for entry in document["predictions"] for line in describe(entry, point)]
    lines += ["error: " + escape_controls(entry["message"]) for entry in document["failures"]]
    return "\n".join([*lines, document["notice"]])
