"""Bundles of the published engines, and their runner in a process that cannot import lesiontk."""

from __future__ import annotations

import atexit
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lesiontk.backends import find_backend, is_engine_file
from lesiontk.deploy import find_bundle_target
from lesiontk.deploy.bundle import write_checksums
from lesiontk.stages.bundle import write_bundle_of_file

PUBLISHED = Path(__file__).parents[2] / "benchmarks" / "engines" / "cnn_7class"


def copy_engines() -> Path:
    """Copy the published engines as their back ends wrote them: without figures inside."""
    folder = Path(tempfile.mkdtemp(prefix="engines-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for path in sorted(filter(is_engine_file, PUBLISHED.iterdir())):
        content, _ = find_backend(path)().split_record(path.read_bytes())
        (folder / path.name).write_bytes(content)
    return folder


ENGINES = copy_engines()
HIDDEN = "import sys, runpy; sys.modules['lesiontk'] = None; {}sys.argv = sys.argv[1:]; "
RUN = "runpy.run_path(sys.argv[0], run_name='__main__')"


def make_bundle(folder: Path, engine: str | Path, target: str = "linux-arm64") -> Path:
    """Write the bundle of a published engine, or of an engine file, into `folder`."""
    path = ENGINES / engine if isinstance(engine, str) else engine
    write_bundle_of_file(folder, path, find_bundle_target(target))
    return folder


def call_runner(
    folder: Path, *words: str, without: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Call ``run.py``, from elsewhere; the packages `without` cannot be imported."""
    code = HIDDEN.format("".join(f"sys.modules[{name!r}] = None; " for name in without)) + RUN
    return subprocess.run(
        [sys.executable, "-c", code, str(folder / "run.py"), *words],
        capture_output=True, text=True, check=False, cwd=folder.parent, timeout=120,
    )  # fmt: skip


def read_contract(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "bundle.json").read_text())
    return document


def change_contract(folder: Path, changes: Mapping[str, Any]) -> None:
    """Change what the contract says, as if the bundle had been written so."""
    (folder / "bundle.json").write_text(json.dumps({**read_contract(folder), **changes}))
    reseal(folder)


def reseal(folder: Path) -> None:
    """Write the checksums anew, so that a change made on purpose is found by other checks."""
    (folder / "SHA256SUMS").unlink()
    write_checksums(folder)
