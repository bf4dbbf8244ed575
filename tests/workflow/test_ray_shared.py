"""A task of Ray on a machine without the workspace uses the shared store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from lesiontk.stage import StepId
from lesiontk.store import SharedStore, Store
from lesiontk.workflow.ray_cluster import Cluster, connect
from lesiontk.workflow.ray_executor import RayExecutor
from lesiontk.workflow.runner import build_step
from tests.workflow.ray_here import running_ray
from tests.workflow.stub_study import ENGINE, read_log, stub_plan

pytestmark = pytest.mark.slow


@pytest.fixture
def other_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The home of Ray's workers."""
    home = tmp_path / "home"
    home.mkdir()
    token = Path.home() / ".ray" / "auth_token"
    if token.is_file():  # a later Ray of one process expects it in any home
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.setenv("HOME", str(home))
    with running_ray():
        yield home


@dataclass(frozen=True, slots=True)
class OtherMachines(Cluster):
    """Workers that believe to be on another machine than this process."""

    real: str = ""

    def pin(self) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(self.real, soft=False)


def test_another_machine_fetches_the_parents_and_shares_what_it_makes(
    other_home: Path, tmp_path: Path
) -> None:
    (tmp_path / "share").mkdir()
    shared = SharedStore((tmp_path / "share").as_uri())
    here = Store(tmp_path / "here", threads=1, shared=shared)
    log = tmp_path / "log"
    plan, model = stub_plan(1, 2, 0.0, str(log)), StepId("model")
    made = build_step(plan, model, Store(here.workspace, threads=1), {})  # before it was shared
    with connect(here, None) as cluster:
        same = {field.name: getattr(cluster, field.name) for field in fields(Cluster)}
        others = OtherMachines(**{**same, "node": "elsewhere", "common": False}, real=cluster.node)
        executor = RayExecutor(others, parallel=1)
        try:
            engine = build_step(plan, ENGINE, here, {model: made}, executor=executor)
        finally:
            executor.close()
    assert engine.path.parent == here.workspace
    assert here.damage(engine.path) is None
    (there,) = other_home.glob(".cache/lesiontk/*")
    assert {made.name, engine.name} <= set(Store(there).list_names())
    begun = [line.stage for line in read_log(log) if line.what == "begin"]
    assert begun.count("stub_train") == 1
