"""The workers of one training, read from the environment variable TF_CONFIG."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lesiontk.errors import DataError, MissingRequirementError, UsageError, show_value
from lesiontk.files.strict_json import parse_json

VARIABLE = "TF_CONFIG"
EXAMPLE = (
    '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


@dataclass(frozen=True, slots=True)
class Cluster:
    """The ``host:port`` of every worker, and the index of this process; 0 is the chief."""

    addresses: tuple[str, ...]
    index: int


def read_cluster(environment: Mapping[str, str] = os.environ) -> Cluster:
    """Return the cluster of TF_CONFIG; a task of type ``chief``, if any, comes first.

    Raises `MissingRequirementError` if the variable is missing and `UsageError` if it is malformed.
    """
    text = environment.get(VARIABLE, "")
    if not text:
        raise MissingRequirementError(
            f"train.distribute is multi_worker, but {VARIABLE} is not set; expected, on every "
            f"worker with its own index, {VARIABLE}='{EXAMPLE}'. Without other machines, use "
            "train.distribute=none or mirrored."
        )
    try:
        document = parse_json(text, VARIABLE)
    except DataError as error:
        raise _malformed(text, f"which is not JSON ({error})") from error
    cluster, task = (_section(document, name, text) for name in ("cluster", "task"))
    unknown_types = set(cluster) - {"chief", "worker"}
    if unknown_types:
        raise _malformed(text, f"with tasks of type {', '.join(sorted(unknown_types))}")
    chiefs, workers = (cluster.get(kind, []) for kind in ("chief", "worker"))
    for addresses in (chiefs, workers):
        if not isinstance(addresses, list) or not all(map(_is_address, addresses)):
            raise _malformed(text, f"with {addresses!r} where host:port strings are listed")
    kind, index = task.get("type"), task.get("index")
    other_tasks = {"chief": chiefs, "worker": workers}.get(str(kind), [])
    if type(index) is not int or not 0 <= index < len(other_tasks):
        raise _malformed(text, f"with the task {kind!r}, index {index!r}, which it does not list")
    all_addresses = (*chiefs, *workers)
    if len(set(all_addresses)) < len(all_addresses) or len(chiefs) > 1:
        raise _malformed(text, "with a duplicate address or two chiefs")
    return Cluster(all_addresses, index + (len(chiefs) if kind == "worker" else 0))


def _section(document: Any, name: str, text: str) -> dict[str, Any]:
    found = document.get(name) if isinstance(document, dict) else None
    if not isinstance(found, dict):
        raise _malformed(text, f"without a section {name!r}")
    return found


def _is_address(value: Any) -> bool:
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    return bool(host and colon) and port.isdigit() and 0 < int(port) < 65536


def _malformed(text: str, why: str) -> UsageError:
    return UsageError(
        f"received {VARIABLE}={show_value(text)}, {why}; expected one such as {EXAMPLE}."
    )
