"""Measurements of devices that a workspace knows, and the files of its engines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lesiontk.backends.reference_outputs import engine_file
from lesiontk.bench.device import DeviceBench
from lesiontk.records import Artefact
from lesiontk.store import Store


def remembered_devices(store: Store, engines: Mapping[str, Artefact]) -> tuple[DeviceBench, ...]:
    """Return the measurements of `engines` in the last used benchmark of any of them."""
    for benchmark in store.list_artefacts("benchmark"):
        judged = {
            role.partition(":")[2]: parent.content
            for role, parent in benchmark.manifest.parents.items()
            if role.startswith("engine:")
        }
        if any(judged.get(target) == engine.content for target, engine in engines.items()):
            devices = benchmark.manifest.config.get("devices", ())
            known = (DeviceBench.from_document(document) for document in devices)
            return tuple(
                device
                for device in known
                if device.target in engines
                and judged.get(device.target) == engines[device.target].content
            )
    return ()


def files_of(engines: Mapping[str, Artefact]) -> dict[str, Path]:
    """Return the file of each engine."""
    return {target: engine_file(engine) for target, engine in engines.items()}
