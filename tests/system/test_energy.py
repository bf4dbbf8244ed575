"""The energy counters of a processor are read, also past their end; otherwise there is a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from lesiontk.system.energy import open_energy_counter


def write_zone(root: Path, name: str, microjoules: int | str, kind: str = "package-0") -> Path:
    zone = root / "sys/class/powercap" / name
    zone.mkdir(parents=True, exist_ok=True)
    (zone / "name").write_text(f"{kind}\n")
    (zone / "energy_uj").write_text(f"{microjoules}\n")
    (zone / "max_energy_range_uj").write_text("1000000000\n")
    return zone


def test_the_packages_are_added_and_their_parts_and_the_platform_are_not(tmp_path: Path) -> None:
    zones = [write_zone(tmp_path, f"intel-rapl:{number}", 5_000_000) for number in (0, 1)]
    write_zone(tmp_path, "intel-rapl:0:0", 4_000_000, "core")
    zones.append(write_zone(tmp_path, "intel-rapl:2", 9_000_000, "psys"))  # contains both
    counter = open_energy_counter(tmp_path)
    before = counter.read()
    for zone in zones:
        (zone / "energy_uj").write_text("7500000\n")
    assert counter.subtract(before, counter.read()) == 5.0


def test_a_counter_that_began_again_is_continued(tmp_path: Path) -> None:
    zone = write_zone(tmp_path, "intel-rapl:0", 999_000_000)
    counter = open_energy_counter(tmp_path)
    before = counter.read()
    (zone / "energy_uj").write_text("2000000\n")
    assert counter.subtract(before, counter.read()) == pytest.approx(3.0)


def test_without_a_counter_there_is_a_reason(tmp_path: Path) -> None:
    assert open_energy_counter(tmp_path).lacks == "the system has no /sys/class/powercap (RAPL)"
    (tmp_path / "sys/class/powercap/dtpm").mkdir(parents=True)
    assert "no processor package" in open_energy_counter(tmp_path).lacks
    write_zone(tmp_path, "intel-rapl:0", "locked")
    counter = open_energy_counter(tmp_path)
    assert counter.lacks.startswith("intel-rapl:0/energy_uj cannot be read")
    assert counter.read() == ()
