"""A distribution as pip installs one, with a plugin as its entry point."""

from __future__ import annotations

import shutil
from pathlib import Path

EXAMPLE = Path(__file__).with_name("example_plugin.py")


def install_plugin(folder: Path, name: str, value: str) -> None:
    """Write the metadata of a distribution ``NAME 1.0`` whose plugin is `value`."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[lesiontk.plugins]\n{name} = {value}\n")


def install_example(folder: Path) -> None:
    """Install the example plugin, its module beside its metadata."""
    install_plugin(folder, "lesiontk-example", "example_plugin:register")
    shutil.copyfile(EXAMPLE, folder / "example_plugin.py")
