"""The speed of engines as tables: scenarios, the path from file to answer, roofline, layers."""

from __future__ import annotations

from statistics import median

from lesiontk.backends.execution import runs_on_cpu
from lesiontk.bench.benchmark import Benchmark
from lesiontk.bench.layer_profile import LayerProfile
from lesiontk.bench.roofline import RooflinePoint, find_peak, locate_engine
from lesiontk.bench.timing import TITLES
from lesiontk.report.result_table import format_ms

SCENARIO_COLUMNS = [
    "engine", "scenario", "threads", "images/s", "median ms", "p90 ms", "p99 ms", "n", "rounds",
    "mJ/image", "faster", "noise",
]  # fmt: skip


def list_scenario_cells(benchmark: Benchmark) -> list[list[str]]:
    """Return a row of `SCENARIO_COLUMNS` for each engine and scenario, but emulated engines.

    Offline, latencies are those of a query of many images.
    """
    rows = []
    for row in benchmark.rows:
        for timing in () if row.emulated_by else row.scenarios:
            latency, ends = timing.latency_ms, timing.speedup_interval
            faster = "–" if timing.speedup is None else f"{timing.speedup:.2f}×"
            if ends is not None:
                faster += f" [{ends[0]:.2f}, {ends[1]:.2f}]"
            threads = str(timing.threads)
            rows.append(
                [
                    row.key,
                    TITLES[timing.scenario]
                    + (f", {timing.batch} images a query" if timing.batch > 1 else ""),
                    f"{timing.streams} × {threads}" if timing.streams > 1 else threads,
                    f"{timing.images_per_second:.0f}",
                    *map(format_ms, (latency.median, latency.p90, latency.p99)),
                    str(latency.n),
                    str(timing.rounds),
                    "–" if timing.energy_mj is None else f"{timing.energy_mj:.2f}",
                    faster,
                    "noisy" if timing.noise else "calm",
                ]
            )
    return rows


PATH_COLUMNS = [
    "engine", "decode ms", "crop and resize ms", "inference ms", "whole ms", "whole p90 ms", "n",
    "first answer ms", "load ms", "above idle, MB", "size, MB", "deflated, MB",
]  # fmt: skip


def list_path_cells(benchmark: Benchmark) -> list[list[str]]:
    """Return a row of `PATH_COLUMNS` for each engine whose path was timed, but emulated ones."""
    rows = []
    for row in benchmark.rows:
        path, load = row.path, row.load
        if row.emulated_by or path is None or load is None:
            continue
        above = load.above_idle_bytes
        rows.append(
            [
                row.key,
                *map(format_ms, (path.decode, path.resize, path.inference)),
                *map(format_ms, (path.whole.median, path.whole.p90)),
                str(path.n),
                f"{load.first_ms:.0f}",
                format_ms(median(load.again_ms)),
                "–" if above is None else f"{above / 1e6:.0f}",
                f"{row.size_bytes / 1e6:.2f}",
                f"{(row.deflated_bytes or 0) / 1e6:.2f}",
            ]
        )
    return rows


LAYER_COLUMNS = ["layer", "median ms", "interval", "share", "MMAC", "GOP/s", "operators"]


def list_layer_cells(profile: LayerProfile) -> list[list[str]]:
    """Return a row of `LAYER_COLUMNS` for each layer, the slowest first."""
    return [
        [
            layer.layer,
            f"{layer.median_ms:.4f}",
            f"[{layer.low_ms:.4f}, {layer.high_ms:.4f}]",
            f"{layer.share:.1%}",
            "–" if layer.macs is None else f"{layer.macs / 1e6:.2f}",
            "–" if layer.gops is None else f"{layer.gops:.1f}",
            ", ".join(layer.kinds),
        ]
        for layer in profile.layers
    ]


def describe_profile(profile: LayerProfile) -> str:
    """Return how layers were measured, and what their sum is of the whole."""
    threads = "1 thread" if profile.threads == 1 else f"{profile.threads} threads"
    return (
        f"Measured: {profile.method}; {threads}, n = {profile.rounds} rounds, intervals at "
        f"{profile.confidence:.0%}. The sum of the layers is {profile.coverage:.0%} of the median "
        f"of the engine, {format_ms(profile.whole_ms.median)} ms."
    )


ROOFLINE_COLUMNS = ["engine", "MMAC", "OP/byte", "GOP/s", "attainable GOP/s", "share of the roof"]


def list_roofline(benchmark: Benchmark) -> tuple[RooflinePoint, ...]:
    """Return the engines with known work on the roofline, single stream.

    Only those that execute on the CPU, whose peak was measured.
    """
    peak = find_peak(benchmark.peaks, benchmark.threads)
    if peak is None:
        return ()
    return tuple(
        locate_engine(row.key, row.precision, row.work, row.latency.median, peak)
        for row in benchmark.rows
        if row.work is not None and row.latency_ms is not None and runs_on_cpu(row.execution)
    )


def list_roofline_cells(benchmark: Benchmark) -> list[list[str]]:
    """Return a row of `ROOFLINE_COLUMNS` for each engine with known work."""
    return [
        [
            point.name,
            f"{point.macs / 1e6:.1f}",
            f"{point.intensity:.1f}",
            f"{point.gops:.1f}",
            f"{point.roof_gops:.1f}",
            f"{point.share:.0%}",
        ]
        for point in list_roofline(benchmark)
    ]


def describe_peaks(benchmark: Benchmark) -> str:
    """Return the measured peak of the machine by threads; empty if it was not measured."""
    found = [
        f"{peak.float32_gops:.0f} GOP/s in float32, {peak.int8_gops:.0f} in int8 and "
        f"{peak.bandwidth_gbs:.1f} GB/s on {peak.threads} thread{'s' if peak.threads > 1 else ''}"
        for peak in benchmark.peaks
    ]
    return f"Measured peak: {'; '.join(found)} ({benchmark.peaks[0].method})." if found else ""


def describe_pictures(benchmark: Benchmark) -> str:
    """Return what the path was timed on; empty if it was not."""
    found = (row.path.pictures for row in benchmark.rows if row.path is not None)
    return next(found, "")


def describe_conditions(benchmark: Benchmark) -> list[str]:
    """Return sentences on the machine before and after the timing, and what is not known of it."""
    if not benchmark.conditions:
        return []
    before, after = benchmark.conditions
    known = [
        f"{title} {_around(getattr(before, name), getattr(after, name), unit)}"
        for name, (title, unit) in CONDITIONS.items()
        if getattr(before, name) is not None or getattr(after, name) is not None
    ]
    unknown = {**before.unknown, **after.unknown}
    energy = f"Energy is not known: {benchmark.energy_lacks}." if benchmark.energy_lacks else ENERGY
    return [
        *([f"Before and after: {', '.join(known)}."] if known else []),
        *(f"The {CONDITIONS[name][0]} is not known: {reason}." for name, reason in unknown.items()),
        energy,
    ]


ENERGY = "Energy is that of the processor packages (RAPL) above idle, for one image."
CONDITIONS = {
    "governors": ("governor", ""),
    "frequency_mhz": ("frequency", " MHz"),
    "temperature_c": ("temperature", " °C"),
    "load": ("load", ""),
}


def _around(before: object, after: object, unit: str) -> str:
    shown = [
        "–" if value is None else ", ".join(value) if isinstance(value, tuple) else f"{value:.4g}"
        for value in (before, after)
    ]
    return f"{' and '.join(dict.fromkeys(shown))}{unit}"
