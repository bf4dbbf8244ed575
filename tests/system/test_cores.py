"""A process that is given fewer cores counts fewer."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lesiontk.system.cores import count_cores


@pytest.fixture
def one_core() -> Iterator[None]:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system does not restrict processes to cores")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.usefixtures("one_core")
def test_only_the_cores_that_a_process_may_use_count() -> None:
    assert count_cores() == 1


def test_without_affinity_it_is_the_machine_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert count_cores() == 3
