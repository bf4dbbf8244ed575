"""``run.py bench``: raw latencies and outputs of this device, for ``lesiontk bench --import``."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict

from lesiontk.deploy.runner.classifier import describe_engine
from lesiontk.deploy.runner.command import Call, Outcome, positive
from lesiontk.deploy.runner.documents import (
    Agreement,
    EngineDescription,
    EvaluationDocument,
    Latency,
)
from lesiontk.deploy.runner.engine_choice import open_classifier
from lesiontk.deploy.runner.evaluate import Evaluation, describe_scores, evaluate_images
from lesiontk.deploy.runner.golden import compare, read_golden
from lesiontk.deploy.runner.labelled_folder import LabelledImage, read_labelled_folder
from lesiontk.deploy.runner.machine import describe_machine, peak_memory_bytes
from lesiontk.deploy.runner.power import Energy, describe_energy, measure_energy
from lesiontk.deploy.runner.timing import summarize, time_engine

HELP = "measure latency, for `lesiontk bench --import`"
FORMAT = 1


class BenchDocument(TypedDict):
    """The document that ``lesiontk bench --import`` reads; sizes are in bytes."""

    format: int
    bundle: str
    bundle_sha256: str
    target: str
    engine: object
    engine_bytes: int
    labels: list[str]
    device: str
    machine: object
    runtime: EngineDescription
    threads: int
    warmup: int
    latency_ms: Latency
    peak_memory_bytes: int | None
    energy: Energy
    answers: Agreement
    evaluation: EvaluationDocument | None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    parser.add_argument("--rounds", type=positive, default=200, help="number of timed images")
    parser.add_argument("--warmup", type=positive, default=20, help="images before, not counted")
    parser.add_argument("--device", default="", help="a name for this device in the report")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="evaluate these, too")
    parser.add_argument("--labels", type=Path, metavar="LABELS.csv", help="their labels")


def run(call: Call) -> Outcome:
    """Return the samples in ms, the energy of an inference, the outputs' agreement, and what they
    were measured on."""
    call.require_files()
    bundle, options = call.bundle, call.options
    if (options.images is None) != (options.labels is None):
        raise ValueError("received one of --images and --labels; expected both or neither")
    labelled: list[LabelledImage] = []
    missing: list[str] = []
    if options.images is not None:
        labelled, missing = read_labelled_folder(options.images, options.labels, bundle.labels)
    machine = describe_machine()
    with open_classifier(bundle, options.runtime, options.threads) as classifier:
        bundle = classifier.bundle
        images, expected, _ = read_golden(bundle)
        answers = compare(expected, classifier.infer(images), bundle.golden)
        samples = time_engine(classifier.engine, images, options.rounds, options.warmup)
        memory = peak_memory_bytes()  # before images are decoded
        energy = measure_energy(lambda: classifier.engine.predict(images[:1]))
        evaluation = evaluate_images(classifier, labelled, missing) if labelled else None
    document: BenchDocument = {
        "format": FORMAT,
        "bundle": bundle.name,
        "bundle_sha256": call.files.sums_sha256,
        "target": bundle.target,
        "engine": bundle.document["engine"],
        "engine_bytes": bundle.engine.stat().st_size,
        "labels": list(bundle.labels),
        "device": options.device or machine.processor,
        "machine": asdict(machine),
        "runtime": classifier.description,
        "threads": options.threads,
        "warmup": options.warmup,
        "latency_ms": summarize(samples),
        "peak_memory_bytes": memory,
        "energy": energy,
        "answers": answers,
        "evaluation": None if evaluation is None else evaluation.to_document(),
    }
    return Outcome(document, render(document, evaluation), 0 if answers["as_expected"] else 1)


def render(document: BenchDocument, evaluation: Evaluation | None) -> str:
    """Return the figures as text."""
    found = document["latency_ms"]
    lines = [
        "{bundle} on {device}, {threads} thread(s)".format(**document),
        *describe_engine(document["runtime"]),
        "latency: median {median:.2f} ms, p90 {p90:.2f} ms, n = {n}".format(**found),
        "outputs: {}".format(
            "as expected" if document["answers"]["as_expected"] else "NOT AS EXPECTED"
        ),
    ]
    if document["peak_memory_bytes"]:
        lines.append("peak memory: {:.1f} MB".format(document["peak_memory_bytes"] / 1e6))
    lines.append(describe_energy(document["energy"]))
    if evaluation is not None:
        lines += describe_scores(evaluation)
    return "\n".join([*lines, "with --json, `lesiontk bench --import` reads it"])
