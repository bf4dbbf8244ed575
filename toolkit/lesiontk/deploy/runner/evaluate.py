"""``run.py evaluate``: the device's answers to labelled images, and their scores."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from lesiontk.deploy.runner.classifier import Classifier, describe_engine, import_picture
from lesiontk.deploy.runner.command import Call, Outcome
from lesiontk.deploy.runner.contract import Bundle
from lesiontk.deploy.runner.decision import escape_controls
from lesiontk.deploy.runner.documents import (
    EngineDescription,
    EvaluationDocument,
    Failure,
    LabelledPrediction,
)
from lesiontk.deploy.runner.engine_choice import open_classifier
from lesiontk.deploy.runner.labelled_folder import LabelledImage, read_labelled_folder
from lesiontk.deploy.runner.scores import Scores, Share, score

HELP = "evaluate on labelled images"


@dataclass(frozen=True)
class Evaluation:
    """The predictions of labelled images, their scores if there are any, and unread images."""

    bundle: Bundle
    scores: Scores | None
    predictions: list[LabelledPrediction]
    failures: list[Failure]

    def to_document(self) -> EvaluationDocument:
        """Return the evaluation as a JSON document."""
        return {
            **self.bundle.identity,
            "labels": list(self.bundle.labels),
            "operating_point": self.bundle.point_document,
            "n": len(self.predictions),
            "scores": None if self.scores is None else self.scores.to_document(),
            "predictions": self.predictions,
            "failures": self.failures,
            "notice": self.bundle.notice,
        }


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
        found = evaluate_images(classifier, images, missing)
    document = {**found.to_document(), "engine": classifier.description}
    text = render(found, classifier.description)
    return Outcome(document, text, 2 if found.failures else 0)


def evaluate_images(
    classifier: Classifier, images: list[LabelledImage], missing: list[str]
) -> Evaluation:
    """Return the evaluation of images; those that cannot be read or are `missing` are failures."""
    bundle = classifier.bundle
    picture, labels = import_picture(), bundle.labels
    predictions: list[LabelledPrediction] = []
    failures: list[Failure] = []
    truth: list[int] = []
    for image in images:
        try:
            found = classifier.classify_file(image.path)
        except picture.PictureError as error:
            failures.append({"image": image.name, "message": str(error)})
            continue
        found["image"] = image.name
        predictions.append({**found, "truth": labels[image.truth], "lesion": image.lesion})
        truth.append(image.truth)
    failures += [{"image": name, "message": "no such file"} for name in missing]
    scores = None
    if predictions:
        scores = score(
            truth,
            [labels.index(entry["label"]) for entry in predictions],
            [entry["positive"] for entry in predictions] if bundle.point else None,
            labels,
            bundle.point.positive if bundle.point else (),
        )
    return Evaluation(bundle, scores, predictions, failures)


def render(found: Evaluation, engine: EngineDescription) -> str:
    """Return the scores as text."""
    lines = [f"{found.bundle.name}, n = {len(found.predictions)} images", *describe_engine(engine)]
    lines += describe_scores(found)
    failures = ("{image}: {message}".format(**entry) for entry in found.failures)
    lines += ["error: " + escape_controls(line) for line in failures]
    return "\n".join([*lines, found.bundle.notice])


def describe_scores(found: Evaluation) -> list[str]:
    """Return a line for each score, none without images; intervals at 95 %."""
    scores, point = found.scores, found.bundle.point
    if scores is None:
        return []
    lines = [
        "accuracy " + describe_share(scores.accuracy),
        f"balanced accuracy {scores.balanced_accuracy:.3f}",
    ]
    lines += [
        f"sensitivity of {name} {describe_share(entry)}"
        for name, entry in scores.sensitivities.items()
    ]
    if point and scores.sensitivity and scores.specificity:
        what = "{} at {:.4g}".format(" + ".join(point.positive), point.threshold)
        lines.append(f"sensitivity of {what}: {describe_share(scores.sensitivity)}")
        lines.append(f"specificity of {what}: {describe_share(scores.specificity)}")
    return lines


def describe_share(share: Share) -> str:
    """Return a share with its interval and n."""
    if share.value is None:
        return "unknown: no image"
    return f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}], n = {share.n}"
