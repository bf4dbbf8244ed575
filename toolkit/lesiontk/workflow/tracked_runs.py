"""What a tracker gets of an artefact: hashes, figures, names.

Each figure is chosen here by its name, so that no list of images can be among them.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lesiontk.backends.engine_facts import EngineFacts
from lesiontk.bench.benchmark import EngineRow
from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.records import Artefact, ManifestHeader, ModelFacts
from lesiontk.stages.bench import read_benchmark
from lesiontk.tracking import State, TrackedRun

CURVES = "curves.csv"
UNTRACKED = frozenset({"devices"})
"""Keys of configs that are no parameters: measurements of devices are long documents."""
PATH = re.compile(r"\S*[/\\]\S*")

Figures = dict[str, float]


def begin_run(header: ManifestHeader) -> TrackedRun:
    """Return the run of an artefact whose stage begins."""
    tags = {
        "kind": header.kind,
        "stage": header.stage.name,
        "artefact": header.name,
        "recipe": header.recipe_name,
        **{f"parent.{role}": f"{p.name} {p.content}" for role, p in header.parents.items()},
        **{f"input.{name}": digest for name, digest in header.external_inputs.items()},
        **{f"tool.{name}": version for name, version in header.tools.items()},
    }
    return TrackedRun(
        key=header.key,
        name=" ".join(filter(None, (header.recipe_name, header.stage.name, header.name))),
        state=State.RUNNING,
        params=flatten(header.config),
        tags=own_tags(tags),
    )


def end_run(artefact: Artefact) -> TrackedRun:
    """Return the whole run of a finished artefact of a kind in `TRACKED`."""
    begun, manifest = begin_run(artefact.manifest), artefact.manifest
    files = {f"file.{name}": entry.sha256 for name, entry in manifest.files.items()}
    metrics, params, tags = TRACKED[artefact.kind](artefact)
    return TrackedRun(
        key=begun.key,
        name=begun.name,
        state=State.FINISHED,
        params={**begun.params, **params},
        metrics=metrics,
        tags={**begun.tags, **own_tags({"content": manifest.content, **files, **tags})},
        epochs=dict(_read_epochs(artefact)),
        started=manifest.created - manifest.seconds,
        ended=manifest.created,
    )


def name_epoch(row: Mapping[str, float]) -> Figures:
    """Return the metrics of an epoch by their tracked names."""
    return {
        "training/loss" if name == "loss" else f"validation/{name}": float(value)
        for name, value in row.items()
        if name != "epoch"
    }


def _read_epochs(artefact: Artefact) -> Iterator[tuple[int, Figures]]:
    if CURVES in artefact.manifest.files:
        with artefact.file(CURVES).open(newline="") as stream:
            for row in csv.DictReader(stream):
                values = {name: float(value) for name, value in row.items()}
                yield int(values["epoch"]), name_epoch(values)


def flatten(document: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return dotted key -> text of a document, without keys of None; a path is its last part."""
    found: dict[str, str] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{key}.")
        elif value is not None and key not in UNTRACKED:
            found[f"{prefix}{key}"] = shorten_paths(_text(value))
    return found


def _text(value: Any) -> str:
    if isinstance(value, list | tuple) and not any(isinstance(v, dict | list) for v in value):
        return ", ".join(map(_text, value))
    return (
        value
        if isinstance(value, str)
        else json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)
    )


def shorten_paths(text: str) -> str:
    """Return a text in which each path is cut to its last part."""
    return PATH.sub(lambda found: re.split(r"[/\\]", found[0].rstrip("/\\"))[-1], text)


def own_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags with the toolkit's prefix, without empty ones and paths."""
    return {f"lesiontk.{name}": shorten_paths(value) for name, value in tags.items() if value}


# ---------------------------------------------------------------------- artefacts

Described = tuple[Figures, dict[str, str], dict[str, str]]
"""Metrics, parameters and tags."""


def _describe_model(artefact: Artefact) -> Described:
    facts = artefact.read_facts(ModelFacts)
    metrics: Figures = {
        "model/parameters": facts.parameters,
        "model/epochs": facts.epochs,
        "model/best_epoch": facts.best_epoch,
        "model/validation_images": facts.validation.n,
        **{f"model/{name}": value for name, value in facts.validation.metrics.items()},
        **{f"model/recall[{label}]": value for label, value in facts.recalls.items()},
    }
    if facts.footprint is not None:
        for when in ("before", "after"):
            footprint = getattr(facts.footprint, when)
            metrics |= {
                f"{when}/size_bytes": footprint.size_bytes,
                f"{when}/median_ms": footprint.median_ms,
            }
    params = {
        "task": facts.task,
        "architecture": facts.architecture,
        "image_size": str(facts.preprocessing.image_size),
        "split": facts.split_hash,
    }
    return metrics, params, {}


def _describe_engine(artefact: Artefact) -> Described:
    facts = artefact.read_facts(EngineFacts)
    checked = facts.verification
    metrics: Figures = {
        "engine/size_bytes": facts.size_bytes,
        "verification/images": checked.n,
        "verification/passed": float(checked.passed),
        **{f"verification/{check.name}": check.value for check in checked.checks},
    }
    return metrics, {"split": facts.split_hash}, {}


def _describe_benchmark(artefact: Artefact) -> Described:
    benchmark = read_benchmark(artefact)
    metrics: Figures = {}
    for row in benchmark.rows:
        metrics |= {f"{row.key}/{name}": value for name, value in _list_figures(row)}
    params = {
        "task": benchmark.task,
        "split": benchmark.split_hash,
        "confidence": str(benchmark.confidence),
        "processor": benchmark.machine.processor,
    }
    gates = {
        f"gate.{number}": f"{verdict.engine}: {verdict.gate}: {verdict.outcome.words}"
        for number, verdict in enumerate(benchmark.gate, start=1)
    }
    emulated = {f"emulated.{row.key}": row.emulated_by or "" for row in benchmark.rows}
    return metrics, params, {**gates, **emulated}


def _list_figures(row: EngineRow) -> Iterator[tuple[str, float]]:
    """Yield the figures of an engine; latency and memory of an emulated one are of no use."""
    yield "size_bytes", row.size_bytes
    if row.emulated_by is None:
        if row.latency_ms is not None:
            yield "median_ms", row.latency_ms.median
            for name, value in (("p90_ms", row.latency_ms.p90), ("p99_ms", row.latency_ms.p99)):
                if value is not None:
                    yield name, value
            yield "timings", row.latency_ms.n
        if row.peak_memory_bytes is not None:
            yield "peak_memory_bytes", row.peak_memory_bytes
    if row.n is not None and row.lesions is not None:
        yield "test_images", row.n
        yield "test_lesions", row.lesions
    estimates = dict(row.metrics)
    if row.operating_point is not None:
        for name in ("sensitivity", "specificity", "auc"):
            estimates[name] = getattr(row.operating_point, name)
    versus = row.versus_parent
    if versus is not None:
        estimates |= {f"difference/{name}": each for name, each in versus.differences.items()}
        if versus.speedup is not None:
            low, high = versus.speedup_interval or (None, None)
            estimates["speedup"] = Estimate(versus.speedup, low, high)
    for name, estimate in estimates.items():
        for end in ("value", "low", "high"):
            value = getattr(estimate, end)
            if value is not None:
                yield name if end == "value" else f"{name}.{end}", value


TRACKED: dict[str, Callable[[Artefact], Described]] = {
    "model": _describe_model,
    "engine": _describe_engine,
    "benchmark": _describe_benchmark,
}
"""Kind of artefact -> its figures. Others, such as images and splits, are not tracked."""
