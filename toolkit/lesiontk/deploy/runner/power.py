"""Energy of an inference above idle, from a Jetson's own power sensors (INA3221), by tegrastats."""

from __future__ import annotations

import queue
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TypedDict

import numpy as np

INTERVAL_MS = 100
IDLE, SETTLE, BUSY = 30, 10, 50
"""Readings at rest and under load, and those before either that are not counted."""
PATIENCE_S = 10.0
"""How long a reading is waited for."""
RAIL = re.compile(r"\b([A-Z][A-Z0-9_]*) (\d+)(?:mW)?/\d+(?:mW)?(?=\s|$)")
"""A rail's present and mean power, ``VDD_IN 4825mW/4780mW``; earlier versions have no unit."""
TOTALS = (
    ("VDD_IN",),  # Orin Nano and NX, Xavier NX, TX2
    ("POM_5V_IN",),  # Nano
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),  # AGX Orin; the last one feeds VDDQ_VDD2_1V8AO
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),  # AGX Xavier
)
"""The rails whose sum is the power of the module, by family."""


class PowerSummary(TypedDict):
    """Readings in mW with their mean and standard deviation."""

    n: int
    mean: float
    sd: float
    readings: list[float]


class Unmeasured(TypedDict):
    """The energy of an inference above idle in mJ; None if it was not measured, for `lacks`."""

    per_inference_mj: float | None
    lacks: str


class Energy(Unmeasured, total=False):
    """What a measured energy is computed from."""

    rails: list[str]
    idle_mw: PowerSummary
    busy_mw: PowerSummary
    inferences: int
    seconds: float


class NoPowerError(Exception):
    """The power of this device cannot be read."""


def read_power(line: str) -> tuple[float, tuple[str, ...]]:
    """Return the module's power in mW and the rails that it is the sum of.

    Raises `NoPowerError` if the line of tegrastats has none of the known sets of rails.
    """
    rails = {name: float(value) for name, value in RAIL.findall(line)}
    for names in TOTALS:
        if all(name in rails for name in names):
            return sum(rails[name] for name in names), names
    known = " or ".join(" + ".join(names) for names in TOTALS)
    shown = f"the rails {', '.join(rails)}" if rails else "no power rail"
    raise NoPowerError(f"tegrastats shows {shown}; expected {known}. Run as root if it shows none")


class Tegrastats:
    """The program while it runs; a thread reads its lines, so that no reading waits for another.

    Raises `NoPowerError` where it is not installed.
    """

    def __init__(self) -> None:
        program = shutil.which("tegrastats")
        if program is None:
            raise NoPowerError("tegrastats is not on the PATH; it is a part of JetPack")
        self._process = subprocess.Popen(
            [program, "--interval", str(INTERVAL_MS)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, name="tegrastats", daemon=True)
        self._thread.start()

    def __enter__(self) -> Tegrastats:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait()
        self._thread.join()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read(self) -> None:
        stream = self._process.stdout
        for line in stream or ():
            self._lines.put(line)
        self._lines.put("")  # its end

    def forget(self) -> None:
        """Drop the lines that were not read."""
        while not self._lines.empty():
            self._lines.get_nowait()

    def wait(self) -> str:
        """Return the next line. Raises `NoPowerError` if there is none in time."""
        try:
            line = self._lines.get(timeout=PATIENCE_S)
        except queue.Empty:
            raise NoPowerError(f"tegrastats printed nothing for {PATIENCE_S:g} s") from None
        if not line:
            raise NoPowerError(f"tegrastats ended with code {self._process.wait()}")
        return line

    def poll(self) -> str | None:
        """Return the next line, or None if there is none yet."""
        return None if self._lines.empty() else self.wait()


def measure_energy(
    infer: Callable[[], object], clock: Callable[[], float] = time.perf_counter
) -> Energy:
    """Return the energy in mJ of one call of `infer` above idle, and what it is computed from.

    First power at rest is read, then under a load of calls without pause. The energy is the
    difference of the means, times the time, divided by the calls in it. Where power cannot be read,
    ``lacks`` is the reason.
    """
    try:
        with Tegrastats() as sensors:
            return _measure(sensors, infer, clock)
    except (NoPowerError, OSError) as error:
        return {"per_inference_mj": None, "lacks": str(error)}


def _measure(
    sensors: Tegrastats, infer: Callable[[], object], clock: Callable[[], float]
) -> Energy:
    for _ in range(SETTLE):
        _, rails = read_power(sensors.wait())
    idle = [read_power(sensors.wait())[0] for _ in range(IDLE)]
    _run(sensors, infer, SETTLE, clock)
    sensors.forget()
    start = clock()
    busy, calls = _run(sensors, infer, BUSY, clock)
    seconds = clock() - start
    above = float(np.mean(busy) - np.mean(idle))
    return {
        "per_inference_mj": above * seconds / calls,
        "lacks": "",
        "rails": list(rails),
        "idle_mw": summarize_power(idle),
        "busy_mw": summarize_power(busy),
        "inferences": calls,
        "seconds": seconds,
    }


def _run(
    sensors: Tegrastats,
    infer: Callable[[], object],
    readings: int,
    clock: Callable[[], float],
) -> tuple[list[float], int]:
    """Return the power in mW of so many readings under load, and the number of calls."""
    powers: list[float] = []
    calls = 0
    last = clock()
    while len(powers) < readings:
        infer()
        calls += 1
        line = sensors.poll()
        if line is not None:
            powers.append(read_power(line)[0])
            last = clock()
        elif clock() - last > PATIENCE_S:
            raise NoPowerError(f"tegrastats printed nothing for {PATIENCE_S:g} s")
    return powers, calls


def summarize_power(values: list[float]) -> PowerSummary:
    """Return n, mean, standard deviation and the readings in mW."""
    return {
        "n": len(values),
        "mean": float(np.mean(values)),
        "sd": float(np.std(values, ddof=1)),
        "readings": values,
    }


def describe_energy(energy: Energy) -> str:
    """Return the energy as text, or why there is none."""
    if energy["per_inference_mj"] is None:
        return "energy: not measured, {lacks}".format(**energy)
    return (
        "energy: {per_inference_mj:.2f} mJ an inference above idle ({idle:.0f} mW at rest, "
        "{busy:.0f} mW under load, n = {n} readings of {rails})".format(
            per_inference_mj=energy["per_inference_mj"],
            idle=energy["idle_mw"]["mean"],
            busy=energy["busy_mw"]["mean"],
            n=energy["busy_mw"]["n"],
            rails=" + ".join(energy["rails"]),
        )
    )
