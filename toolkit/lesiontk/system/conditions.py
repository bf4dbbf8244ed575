"""The state of the machine around a measurement: governor, frequency, temperature, load."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from lesiontk.document import Record

CPUFREQ = "sys/devices/system/cpu/cpu*/cpufreq/"
BUSY = (0, 1, 2, 5, 6, 7)
"""The columns of ``/proc/stat``: user, nice, system, irq, softirq, steal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions(Record):
    """The machine at a moment.

    `governors` are those of its cores, `frequency_mhz` is their mean, `temperature_c` the highest
    of its sensors, `load` the mean number of runnable processes of the last minute. What the system
    does not tell is None, and `unknown` has the reason by name.
    """

    governors: tuple[str, ...] | None = None
    frequency_mhz: float | None = None
    temperature_c: float | None = None
    load: float | None = None
    unknown: Mapping[str, str] = field(default_factory=dict)


def read_conditions(root: Path = Path("/")) -> Conditions:
    """Return the state of this machine; `root` contains ``proc`` and ``sys``."""
    unknown: dict[str, str] = {}
    governors = sorted({_read(path) for path in root.glob(f"{CPUFREQ}scaling_governor")})
    if not governors:
        unknown["governors"] = "the system has no cpufreq/scaling_governor"
    frequency = _read_frequency(root)
    if frequency is None:
        unknown["frequency_mhz"] = "neither cpufreq nor /proc/cpuinfo has it"
    sensors = [_number(_read(p)) for p in root.glob("sys/class/thermal/thermal_zone*/temp")]
    degrees = [value / 1000 for value in sensors if value is not None]
    if not degrees:
        unknown["temperature_c"] = "the system has no thermal zone that can be read"
    load = _number(_read(root / "proc/loadavg").partition(" ")[0])
    if load is None:
        unknown["load"] = "the system has no /proc/loadavg"
    return Conditions(
        governors=tuple(governors) or None,
        frequency_mhz=frequency,
        temperature_c=max(degrees, default=None),
        load=load,
        unknown=unknown,
    )


def read_busy_seconds(root: Path = Path("/")) -> float | None:
    """Return the CPU seconds that all programs of the machine have used since it started.

    Time that a hypervisor gave to other machines counts. None where ``/proc/stat`` is missing.
    """
    words = _read(root / "proc/stat").partition("\n")[0].split()[1:]
    if len(words) <= max(BUSY):
        return None
    return sum(int(words[column]) for column in BUSY) / os.sysconf("SC_CLK_TCK")


def _read_frequency(root: Path) -> float | None:
    kilohertz = [_number(_read(path)) for path in root.glob(f"{CPUFREQ}scaling_cur_freq")]
    known = [value / 1000 for value in kilohertz if value is not None]
    if not known:
        lines = _read(root / "proc/cpuinfo").splitlines()
        cells = [line.partition(":")[2] for line in lines if line.startswith("cpu MHz")]
        known = [value for cell in cells if (value := _number(cell)) is not None]
    return round(fmean(known), 1) if known else None


def _read(path: Path) -> str:
    """Return a file's text; empty if it cannot be read, as a sensor that is switched off."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
