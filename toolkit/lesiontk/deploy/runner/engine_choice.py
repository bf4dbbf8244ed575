"""Which engine a device runs, of two in one bundle: measured on the device at its first start.

The first engine (int8) is kept only if it passes its self-test and is shown to be faster by a
margin; the alternative (float16) is nearer to the trained network. Depthwise networks gain little
from int8 on some GPUs.
"""

from __future__ import annotations

import json
import math
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from lesiontk.deploy.runner.classifier import Classifier
from lesiontk.deploy.runner.contract import Bundle
from lesiontk.deploy.runner.documents import (
    Agreement,
    Choice,
    LatencyRatio,
    MeasuredOn,
    OpenedCandidate,
    StatusAgreement,
)
from lesiontk.deploy.runner.golden import compare, compare_statuses, read_golden
from lesiontk.deploy.runner.timing import time_engine
from lesiontk.files.whole_files import write_whole

CHOICE = "engine_choice.json"
BLOCKS, BLOCK, WARMUP = 30, 10, 2
"""Timed blocks of each engine, taken in turns; images in a block; images before it, not counted."""
CONFIDENCE = 0.95


class NoEngineError(Exception):
    """Neither engine returns the outputs expected of it."""

    exit_code = 1


class StoreError(Exception):
    """The bundle's folder cannot be written."""

    exit_code = 2


def open_classifier(bundle: Bundle, runtime: str | None = None, threads: int = 1) -> Classifier:
    """Return the bundle's engine; of two the one that this device keeps.

    The choice is measured once, with the bundle's preferred runtime, and again for another GPU,
    runtime or engine. With another runtime it is the first engine. Raises `NoEngineError` if
    neither passes its self-test.
    """
    if bundle.alternative is None or runtime not in (None, next(iter(bundle.runtimes))):
        return Classifier(bundle, runtime, threads)
    candidates = (bundle, bundle.alternative)
    kept = open_kept(candidates, runtime, threads)
    if kept is not None:
        return kept
    with ExitStack() as stack:
        sys.stderr.write(f"{bundle.name}: building and timing two engines, once\n")
        opened = [try_to_open(candidate, runtime, threads, stack) for candidate in candidates]
        classifier, reason, latency = choose(opened, bundle.max_latency_ratio)
        choice: Choice = {
            "kept": classifier.bundle.precision,
            "reason": reason,
            "candidates": [found for _, found in opened],
            "max_latency_ratio": bundle.max_latency_ratio,
            "latency": latency,
            "measured_on": identify(candidates, classifier),
        }
        store_choice(bundle.folder, choice)
        sys.stderr.write("kept {kept}: {reason}\n".format(**choice))
        stack.pop_all()
        for other, _ in opened:
            if other is not None and other is not classifier:
                other.close()
    classifier.description["choice"] = choice
    return classifier


def open_kept(
    candidates: tuple[Bundle, Bundle], runtime: str | None, threads: int
) -> Classifier | None:
    """Return the engine of the stored choice, or None if there is none that holds here."""
    known = read_choice(candidates[0].folder)
    if known is None:
        return None
    for candidate in candidates:
        if candidate.precision == known["kept"]:
            try:
                classifier = Classifier(candidate, runtime, threads)
            except Exception as error:  # such as a graph that another TensorRT rejects
                if getattr(error, "exit_code", 2) == 3:
                    raise
                return None
            if known["measured_on"] == identify(candidates, classifier):
                classifier.description["choice"] = known
                return classifier
            classifier.close()
    return None


def read_choice(folder: Path) -> Choice | None:
    """Return the stored choice; None if it cannot be read, which causes a measurement."""
    try:
        choice: Choice = json.loads((folder / CHOICE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    whole = isinstance(choice, dict) and choice.keys() == Choice.__annotations__.keys()
    return choice if whole else None


def store_choice(folder: Path, choice: Choice) -> None:
    """Write the choice. Raises `StoreError` for a folder that cannot be written."""
    try:
        write_whole({folder / CHOICE: (json.dumps(choice, indent=1) + "\n").encode()})
    except OSError as error:
        raise StoreError(
            f"the choice of an engine cannot be stored: {error}. Run `run.py self-test` once as a "
            "user who may write to the bundle's folder"
        ) from error


def identify(candidates: tuple[Bundle, Bundle], opened: Classifier) -> MeasuredOn:
    """Return what a choice depends on: GPU, runtime and both engines."""
    return {
        "runtime": opened.description.get("runtime"),
        "version": opened.description.get("version"),
        "device": opened.description.get("device"),
        "engines": [candidate.content_sha256 for candidate in candidates],
    }


def try_to_open(
    bundle: Bundle, runtime: str | None, threads: int, stack: ExitStack
) -> tuple[Classifier | None, OpenedCandidate]:
    """Return an opened engine with the result of its self-test, or None with the reason.

    Raises what a missing package or GPU raises, because it is missing for both engines.
    """
    images, expected, statuses = read_golden(bundle)
    try:
        classifier = stack.enter_context(Classifier(bundle, runtime, threads))
        answers = compare(expected, classifier.infer(images), bundle.golden)
        checks = compare_statuses(statuses, classifier, images)
    except Exception as error:
        if getattr(error, "exit_code", 2) == 3:
            raise
        reason = str(error) or type(error).__name__
        return None, {"precision": bundle.precision, "as_expected": False, "reason": reason}
    passed = bool(answers["as_expected"] and checks["as_expected"])
    return classifier, {
        "precision": bundle.precision,
        "answers": answers,
        "input_checks": checks,
        "as_expected": passed,
        "reason": "" if passed else describe_fault(answers, checks),
    }


def describe_fault(answers: Agreement, checks: StatusAgreement) -> str:
    """Return what differs from the expected outputs."""
    if answers["as_expected"]:
        return "its input checks agree in {agreement:.1%} of {n} images".format(**checks)
    drift = answers["mean_drift"]
    return "the same class in {:.1%} of {} images, mean difference of a probability {}".format(
        answers["agreement"], answers["n"], "not a number" if drift is None else round(drift, 6)
    )


def choose(
    opened: list[tuple[Classifier | None, OpenedCandidate]], max_ratio: float
) -> tuple[Classifier, str, LatencyRatio | None]:
    """Return the engine that is kept, the reason, and the measurement if both passed."""
    (first, one), (second, other) = opened
    latency = None
    passed = {0: one["as_expected"], 1: other["as_expected"]}
    if not any(passed.values()):
        raise NoEngineError(
            "no engine is kept, so no image is classified: {precision}: {reason}; ".format(**one)
            + "{precision}: {reason}".format(**other)
        )
    if first is None or second is None or not all(passed.values()):
        kept = 0 if passed[0] else 1
        reason = "{precision} does not pass its self-test: {reason}".format(
            **(one, other)[1 - kept]
        )
    else:
        images = read_golden(first.bundle)[0]
        latency = compare_latency(first, second, images)
        kept = 0 if latency["ratio_high"] <= max_ratio else 1
        reason = (
            "the latency of {} is {ratio:.3f} [{ratio_low:.3f}, {ratio_high:.3f}] of that of {} "
            "({confidence:.1%} interval, {blocks} blocks of {block} images in turns), which {} "
            "to be at most {}"
        ).format(
            one["precision"],
            other["precision"],
            "is shown" if kept == 0 else "is not shown",
            max_ratio,
            **latency,
        )
    classifier = (first, second)[kept]
    assert classifier is not None  # it has passed
    return classifier, reason, latency


def compare_latency(first: Classifier, second: Classifier, images: Any) -> LatencyRatio:
    """Return the median ratio of latencies, its interval, and the samples in ms.

    Both engines are timed in turns, the order alternating, so that the GPU's clocks are the same
    for both. A ratio is that of the medians of two neighbouring blocks.
    """
    samples: dict[str, list[list[float]]] = {c.bundle.precision: [] for c in (first, second)}
    for turn in range(BLOCKS):
        for classifier in (first, second) if turn % 2 == 0 else (second, first):
            timed = time_engine(classifier.engine, images, BLOCK, WARMUP)
            samples[classifier.bundle.precision].append(timed)
    medians = [np.median(samples[c.bundle.precision], axis=1) for c in (first, second)]
    ratios = medians[0] / medians[1]
    low, high, confidence = find_median_interval(ratios)
    return {
        "ratio": float(np.median(ratios)),
        "ratio_low": low,
        "ratio_high": high,
        "confidence": confidence,
        "blocks": BLOCKS,
        "block": BLOCK,
        "samples_ms": samples,
    }


def find_median_interval(values: Any) -> tuple[float, float, float]:
    """Return the bounds of the median of n values, and their confidence, at least `CONFIDENCE`.

    The bounds are order statistics: they hold for any distribution (David & Nagaraja, Order
    Statistics, 2003, section 7.1). n is at least 6.
    """
    ordered = sorted(float(value) for value in values)
    n = len(ordered)
    outside = 0.0
    rank = 0
    for k in range(n // 2):
        more = outside + 2 * math.comb(n, k) / 2**n
        if more > 1 - CONFIDENCE:
            break
        outside, rank = more, k
    return ordered[rank], ordered[n - 1 - rank], 1 - outside
