"""``run.py evaluate``: the device's answers to labelled images, and their scores."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lesiontk.deploy.runner.classifier import Classifier, describe_engine, import_picture
from lesiontk.deploy.runner.command import Call, Outcome
from lesiontk.deploy.runner.decision import escape_controls
from lesiontk.deploy.runner.engine_choice import open_classifier
from lesiontk.deploy.runner.labelled_folder import LabelledImage, read_labelled_folder
from lesiontk.deploy.runner.scores import score

HELP = "evaluate on labelled images"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    parser.add_argument("images", type=Path, metavar="FOLDER")
    parser.add_argument("labels", type=Path, metavar="LABELS.csv", help="columns image and label")


def run(call: Call) -> Outcome:
    """Return the scores, the prediction of each image, and the images that were not read."""
    call.require_files()
    bundle, options = call.bundle, call.options
    images, missing = read_labelled_folder(options.images, options.labels, bundle.labels)
    import_picture()
    with open_classifier(bundle, options.runtime, options.threads) as classifier:
        document = evaluate_images(classifier, images)
        document["engine"] = classifier.description
    document["failures"] += [{"image": name, "message": "no such file"} for name in missing]
    return Outcome(document, render(document), 2 if document["failures"] else 0)


def evaluate_images(classifier: Classifier, images: list[LabelledImage]) -> dict[str, Any]:
    """Return the scores and predictions of images; those that cannot be read are `failures`."""
    bundle = classifier.bundle
    picture, labels = import_picture(), bundle.labels
    predictions, failures, truth = [], [], []
    for image in images:
        try:
            found = classifier.classify_file(image.path)
        except picture.PictureError as error:
            failures.append({"image": image.name, "message": str(error)})
            continue
        known = {"image": image.name, "truth": labels[image.truth], "lesion": image.lesion}
        predictions.append({**found, **known})
        truth.append(image.truth)
    scores = None
    if predictions:
        scores = score(
            truth,
            [labels.index(entry["label"]) for entry in predictions],
            [entry["positive"] for entry in predictions] if bundle.point else None,
            labels,
            bundle.point["positive"] if bundle.point else (),
        ).to_document()
    return {
        **bundle.identity,
        "labels": list(labels),
        "operating_point": bundle.point,
        "n": len(predictions),
        "scores": scores,
        "predictions": predictions,
        "failures": failures,
        "notice": bundle.notice,
    }


def render(document: dict[str, Any]) -> str:
    """Return the scores as text."""
    lines = ["{bundle}, n = {n} images".format(**document), *describe_engine(document["engine"])]
    if document["scores"]:
        lines += describe_scores(document["scores"], document["operating_point"])
    failures = ("{image}: {message}".format(**entry) for entry in document["failures"])
    lines += ["error: " + escape_controls(line) for line in failures]
    return "\n".join([*lines, document["notice"]])


def describe_scores(scores: dict[str, Any], point: dict[str, Any] | None) -> list[str]:
    """Return a line for each score; intervals at 95 %."""
    lines = [
        "accuracy " + describe_share(scores["accuracy"]),
        "balanced accuracy {balanced_accuracy:.3f}".format(**scores),
    ]
    lines += [
        f"sensitivity of {name} {describe_share(entry)}"
        for name, entry in scores["sensitivities"].items()
    ]
    if point:
        what = "{} at {:.4g}".format(" + ".join(point["positive"]), point["threshold"])
        lines.append(f"sensitivity of {what}: {describe_share(scores['sensitivity'])}")
        lines.append(f"specificity of {what}: {describe_share(scores['specificity'])}")
    return lines


def describe_share(entry: dict[str, Any]) -> str:
    """Return a share with its interval and n."""
    if entry["value"] is None:
        return "unknown: no image"
    return "{value:.3f} [{low:.3f}, {high:.3f}], n = {n}".format(**entry)
