"""The rows of a benchmark's document, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lesiontk.backends.execution import describe_fallbacks

TRAINED = "@trained"
"""Behind the target of an engine of the model as it was before pruning and the like."""

FULL_PRECISION = "float32"


def name_target(row: Mapping[str, Any]) -> str:
    """Return the target of a row, such as ``tflite:int8`` or ``tflite:float32@trained``."""
    return str(row.get("target") or f"{row['backend']}:{row['precision']}")


def is_trained(target: str) -> bool:
    """Whether a target is of the model as it was before compression."""
    return target.endswith(TRAINED)


def is_reduced(row: Mapping[str, Any]) -> bool:
    """Whether a row is of less than was trained: of lower precision, or compressed."""
    versus = row["versus_parent"]
    compressed = versus is not None and is_trained(versus["parent"])
    return row["precision"] != FULL_PRECISION or (compressed and not is_trained(name_target(row)))


def emulated_by(row: Mapping[str, Any]) -> str | None:
    """Return what answered in the place of a row's runtime; None if that itself ran.

    The scores of an emulated engine are those of its graph's arithmetic; its latency and its memory
    are those of another program and say nothing about it.
    """
    for entry in row.get("execution", ()):
        if entry["kind"] == "runtime" and entry["fell_back"]:
            return str(entry["used"])
    return None


def list_emulated(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return target -> what emulated it, of the rows that were emulated."""
    found = {name_target(row): emulated_by(row) for row in rows}
    return {target: emulator for target, emulator in found.items() if emulator is not None}


def name_row(row: Mapping[str, Any]) -> str:
    """Return the target of a row for people: with a mark where it was emulated."""
    return name_target(row) + (" (emulated)" if emulated_by(row) else "")


def has_own_parent(row: Mapping[str, Any]) -> bool:
    """Whether a row's parent is of the same runtime, so that speeds compare like with like."""
    versus = row["versus_parent"]
    return versus is not None and str(versus["parent"]).partition(":")[0] == row["backend"]


def size_facts(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return target -> `` at 96 px`` where the rows' images differ in size, else nothing."""
    sizes = {name_target(row): row.get("image_size") for row in rows}
    differ = len(set(sizes.values())) > 1
    return {name: f" at {size} px" if differ else "" for name, size in sizes.items()}


def list_fallbacks(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return target -> what fell back, for the rows where anything did but emulation."""
    found = {name_target(row): describe_fallbacks(row) for row in rows if not emulated_by(row)}
    return {target: sentences for target, sentences in found.items() if sentences}
