"""Latency that is measured on another machine, with a bundle of each engine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lesiontk.backends import find_backend
from lesiontk.bench.device import DeviceBench, read_device_bench
from lesiontk.bench.remote import open_transport
from lesiontk.bench.remote.measure import examine, measure
from lesiontk.bench.remote.transport import Transport
from lesiontk.compress.footprint import weigh_engine
from lesiontk.deploy import find_bundle_target
from lesiontk.deploy.bundle import hash_content
from lesiontk.deploy.target import BundleTarget
from lesiontk.errors import DataError, UsageError, suggest
from lesiontk.progress import Progress
from lesiontk.recipe import BenchRule
from lesiontk.records import Footprint
from lesiontk.stages.bundle import write_bundle_of_file

BUNDLES = {
    "x86_64": "linux-x86-64",
    "amd64": "linux-x86-64",
    "aarch64": "linux-arm64",
    "arm64": "linux-arm64",
}
"""Processor architecture -> bundle target."""


@dataclass(frozen=True, slots=True)
class RemoteDevice:
    """A machine to measure on: ``ssh://USER@HOST`` or ``adb://SERIAL``.

    `device` is its bundle target, by default that of its processor. With `install` the bundle's
    requirements are installed there for the measurement.
    """

    url: str
    device: str | None = None
    install: bool = False


def measure_on(
    remote: RemoteDevice, engines: Mapping[str, Path], rule: BenchRule, progress: Progress
) -> tuple[DeviceBench, ...]:
    """Return the measurement of each engine that the machine runs, from name -> file.

    Raises `UsageError` if none of them runs there, and as `lesiontk.bench.remote.measure.measure`.
    """
    transport = open_transport(remote.url)
    bundle = find_bundle(transport, remote.device)
    targets = {name: target_of(path) for name, path in engines.items()}
    chosen = {name: path for name, path in engines.items() if targets[name] in bundle.engines}
    if not chosen:
        bundle.choose(list(targets.values()))  # raises
    options = [
        *("--rounds", str(rule.rounds * rule.queries)),
        *("--warmup", str(rule.warmup)),
        *("--threads", str(rule.threads)),
    ]
    with tempfile.TemporaryDirectory() as temporary:
        measured = []
        for number, (name, path) in enumerate(chosen.items()):
            folder, out = Path(temporary) / f"bundle{number}", Path(temporary) / f"{number}.json"
            write_bundle_of_file(folder, path, bundle)
            with progress.task(f"measuring {name} on {transport.name}", None) as advance:
                out.write_bytes(
                    measure(
                        transport,
                        folder,
                        options,
                        install=remote.install,
                        on_wait=lambda: advance(1),
                    )
                )
            measured.append(out)
        return import_devices(measured, engines)


def find_bundle(transport: Transport, device: str | None = None) -> BundleTarget:
    """Return the bundle target `device` of a machine, by default that of its processor.

    Raises `UnreachableError`, `UsageError` for a processor without one, and
    `MissingRequirementError` without Python.
    """
    found = examine(transport)
    if device is None and found.architecture not in BUNDLES:
        raise UsageError(
            f"{transport.name} has the architecture {found.architecture}; bundles are for "
            f"{', '.join(BUNDLES)}.{suggest(found.architecture, list(BUNDLES))}"
        )
    return find_bundle_target(device or BUNDLES[found.architecture])


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


def compare_on(
    remote: RemoteDevice, target: str, before: Path, after: Path, progress: Progress
) -> Footprint:
    """Return what two engine files of a target cost on another machine, measured after each other.

    Raises as `measure_on`.
    """
    measured = measure_on(remote, {"before": before, "after": after}, BenchRule(), progress)
    devices = {device.content_sha256: device for device in measured}
    first, second = (
        weigh_engine(path, devices[hash_content(path)].latency_ms.median)
        for path in (before, after)
    )
    n = min(len(device.samples_ms) for device in measured)
    return Footprint(target, n, first, second, remote.url)


def target_of(engine: Path) -> str:
    """Return ``backend:precision`` of an engine file. Raises `DataError` without a description."""
    spec = find_backend(engine)().read_spec(engine)
    return f"{spec.backend}:{spec.precision}"
