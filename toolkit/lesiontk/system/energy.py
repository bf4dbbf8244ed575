"""The energy that the processor has used, from the counters of RAPL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = "sys/class/powercap"
ZONE = re.compile(r"intel-rapl:\d+")
"""A zone of the whole, also of AMD; ``intel-rapl:0:1`` is a part of one."""


@dataclass(frozen=True, slots=True)
class EnergyCounter:
    """The counters of all processor packages, or the reason why there are none.

    They count the whole machine, and begin again at zero after some minutes or hours.
    """

    zones: tuple[Path, ...]
    lacks: str = ""

    def read(self) -> tuple[int, ...]:
        """Return the microjoules of each package."""
        return tuple(int((zone / "energy_uj").read_text()) for zone in self.zones)

    def subtract(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """Return the joules between two readings less than one turn of the counters apart."""
        used = 0
        for zone, first, last in zip(self.zones, before, after, strict=True):
            turn = int((zone / "max_energy_range_uj").read_text()) if last < first else 0
            used += last - first + turn
        return used / 1e6


def open_energy_counter(root: Path = Path("/")) -> EnergyCounter:
    """Return this machine's counter; `root` contains ``sys``."""
    folder = root / FOLDER
    if not folder.is_dir():
        return EnergyCounter((), "the system has no /sys/class/powercap (RAPL)")
    zones = tuple(sorted(zone for zone in folder.iterdir() if _is_package(zone)))
    if not zones:
        return EnergyCounter((), "/sys/class/powercap has no processor package")
    counter = EnergyCounter(zones)
    try:
        counter.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return EnergyCounter((), f"{zones[0].name}/energy_uj cannot be read ({reason})")
    return counter


def _is_package(zone: Path) -> bool:
    """Return whether a zone is a processor package; ``psys``, the platform, contains one."""
    if not ZONE.fullmatch(zone.name):
        return False
    try:
        return (zone / "name").read_text().startswith("package")
    except OSError:
        return False
