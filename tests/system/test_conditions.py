"""What a machine tells of its state is read, and what it does not is said."""

from __future__ import annotations

import os
from pathlib import Path

from lesiontk.system.conditions import Conditions, read_busy_seconds, read_conditions

STAT = "cpu  100 5 50 9000 70 3 2 40 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_governor_frequency_temperature_and_load_are_read(tmp_path: Path) -> None:
    for core, kilohertz in enumerate(("1800000", "2200000")):
        folder = f"sys/devices/system/cpu/cpu{core}/cpufreq"
        write(tmp_path, f"{folder}/scaling_governor", "performance\n")
        write(tmp_path, f"{folder}/scaling_cur_freq", f"{kilohertz}\n")
    write(tmp_path, "sys/class/thermal/thermal_zone0/temp", "41500\n")
    write(tmp_path, "sys/class/thermal/thermal_zone1/temp", "52000\n")
    write(tmp_path, "proc/loadavg", "0.52 0.40 0.30 1/200 4711\n")
    assert read_conditions(tmp_path) == Conditions(
        governors=("performance",), frequency_mhz=2000.0, temperature_c=52.0, load=0.52
    )


def test_what_the_machine_does_not_tell_has_a_reason(tmp_path: Path) -> None:
    write(tmp_path, "proc/cpuinfo", "processor : 0\ncpu MHz\t\t: 2300.0\n")
    found = read_conditions(tmp_path)
    assert found.frequency_mhz == 2300.0
    assert (found.governors, found.temperature_c, found.load) == (None, None, None)
    assert set(found.unknown) == {"governors", "temperature_c", "load"}


def test_a_sensor_that_is_no_number_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, "sys/class/thermal/thermal_zone0/temp", "unavailable\n")
    assert read_conditions(tmp_path).temperature_c is None


def test_busy_seconds_are_all_but_idle_and_waiting(tmp_path: Path) -> None:
    write(tmp_path, "proc/stat", STAT)
    ticks = 100 + 5 + 50 + 3 + 2 + 40
    assert read_busy_seconds(tmp_path) == ticks / os.sysconf("SC_CLK_TCK")
    assert read_busy_seconds(tmp_path / "elsewhere") is None
