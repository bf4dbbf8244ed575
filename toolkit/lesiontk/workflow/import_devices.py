"""Measurements of devices, matched to the engines they are of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from lesiontk.backends.reference_outputs import engine_file
from lesiontk.bench.device import DeviceBench, read_device_bench
from lesiontk.deploy.bundle import hash_content
from lesiontk.errors import DataError
from lesiontk.records import Artefact
from lesiontk.store import Store


def import_devices(
    measurements: Iterable[Path], engines: Mapping[str, Path]
) -> tuple[DeviceBench, ...]:
    """Return the measurements, each with the engine whose content it was taken with.

    `engines` maps targets to files. Raises `DataError` for a measurement of another engine.
    """
    known = {hash_content(path): target for target, path in engines.items()}
    found = []
    for path in measurements:
        device = read_device_bench(path)
        if device.content_sha256 not in known:
            listed = ", ".join(f"{target} ({each[:12]})" for each, target in known.items())
            raise DataError(
                f"{path} was measured with an engine of content {device.content_sha256[:12]}; "
                f"expected one of {listed or 'the model, which has no engine'}. Bundle the engine "
                "again and measure it."
            )
        found.append(replace(device, target=known[device.content_sha256]))
    return tuple(found)


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
