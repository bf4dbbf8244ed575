"""Benchmarks whose latency is measured on another machine."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lesiontk.backends import find_backend
from lesiontk.bench.device import DeviceBench
from lesiontk.bench.remote import open_transport
from lesiontk.bench.remote.measure import examine, measure
from lesiontk.deploy import find_bundle_target
from lesiontk.errors import UsageError, suggest
from lesiontk.progress import Progress
from lesiontk.recipe import BenchRule
from lesiontk.stages.bundle import write_bundle_of_file
from lesiontk.workflow.import_devices import import_devices

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
    found = examine(transport)
    if remote.device is None and found.architecture not in BUNDLES:
        raise UsageError(
            f"{transport.name} has the architecture {found.architecture}; bundles are for "
            f"{', '.join(BUNDLES)}.{suggest(found.architecture, list(BUNDLES))}"
        )
    bundle = find_bundle_target(remote.device or BUNDLES[found.architecture])
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


def target_of(engine: Path) -> str:
    """Return ``backend:precision`` of an engine file. Raises `DataError` without a description."""
    spec = find_backend(engine)().read_spec(engine)
    return f"{spec.backend}:{spec.precision}"
