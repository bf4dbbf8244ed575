"""Ray on this machine for the tests: one cluster of sleeping workers a test run."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lesiontk.workflow.ray_cluster import OBJECT_STORE, STARTS, import_ray, quiet_settings

ROOT = Path(__file__).parents[2]
CPUS = 4
"""More than the machine may have: stub stages sleep."""


@contextmanager
def quiet_warnings() -> Iterator[None]:
    """Ray's own warnings are no errors of the toolkit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def worker_environment() -> dict[str, str]:
    """Return the environment of this process, with the tests importable in its children."""
    path = [str(ROOT / "tests" / "ray_path"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}


@contextmanager
def running_ray() -> Iterator[None]:
    """Run Ray while the body runs, with the tests importable in its workers."""
    before, os.environ["PYTHONPATH"] = (
        os.environ.get("PYTHONPATH"),
        worker_environment()["PYTHONPATH"],
    )
    folder = tempfile.mkdtemp(prefix="r-", dir="/tmp")
    with quiet_warnings():
        ray = import_ray()
        for attempt in range(STARTS):
            try:
                ray.init(address="local", num_cpus=CPUS, object_store_memory=OBJECT_STORE,
                         include_dashboard=False, _temp_dir=folder, **quiet_settings())  # fmt: skip
                break
            except Exception:
                ray.shutdown()
                if attempt == STARTS - 1:
                    raise
    try:
        yield
    finally:
        with quiet_warnings():
            ray.shutdown()
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
        shutil.rmtree(folder, ignore_errors=True)
