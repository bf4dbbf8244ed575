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


def tell_sizes(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return target -> `` at 96 px`` where the rows' images differ in size, else nothing."""
    sizes = {name_target(row): row.get("image_size") for row in rows}
    differ = len(set(sizes.values())) > 1
    return {name: f" at {size} px" if differ else "" for name, size in sizes.items()}


def list_fallbacks(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return target -> what fell back, for the rows where anything did."""
    found = {name_target(row): describe_fallbacks(row) for row in rows}
    return {target: sentences for target, sentences in found.items() if sentences}
