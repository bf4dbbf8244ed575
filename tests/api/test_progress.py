"""Bars appear where a person looks, and nowhere else."""

from __future__ import annotations

import sys
import threading
from types import ModuleType
from typing import Any

import pytest

from lesiontk.api import progress
from lesiontk.api.progress import NotebookProgress, RichProgress, draw_bar, make_progress
from lesiontk.progress import NoProgress


class Handle:
    """What IPython returns for a display that can be updated."""

    def __init__(self, shown: list[str]) -> None:
        self.shown = shown

    def update(self, html: str) -> None:
        self.shown.append(html)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A notebook's kernel; what it shows is listed."""
    listed: list[str] = []

    def display(html: str, *, display_id: bool) -> Handle:
        assert display_id
        listed.append(html)
        return Handle(listed)

    package, module = ModuleType("IPython"), ModuleType("IPython.display")
    shell: Any = type("Shell", (), {"kernel": object()})()
    package.get_ipython = lambda: shell  # type: ignore[attr-defined]
    module.HTML, module.display = str, display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return listed


def test_a_notebook_gets_bars_that_go_when_the_work_is_done(
    shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "REFRESH", 0)
    bars = make_progress()
    assert isinstance(bars, NotebookProgress)
    with bars.task("training <b>", 4) as advance:
        advance(1, "loss 0.5")
        advance(1)
    assert 'value="2" max="4"' in shown[2]
    assert "loss 0.5" in shown[2]
    assert "<b>" not in shown[0]
    assert shown[-1] == ""


def test_a_bar_goes_when_the_work_fails(shown: list[str]) -> None:
    with pytest.raises(KeyError), NotebookProgress().task("training", None):
        raise KeyError
    assert shown[-1] == ""


def test_a_terminal_gets_rich_bars_and_a_pipe_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert isinstance(make_progress(), RichProgress)
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    assert isinstance(make_progress(), NoProgress)


def test_tasks_of_several_threads_share_one_display(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[set[str]] = []
    start = progress._start_bars
    displays: list[Any] = []
    monkeypatch.setattr(progress, "_start_bars", lambda: displays.append(start()) or displays[-1])
    bars, both = RichProgress(), threading.Barrier(2)

    def work(name: str) -> None:
        with bars.task(name, 2) as advance:
            both.wait(60)
            advance(1, "half")
            shown.append({task.description for task in displays[0].tasks})
            both.wait(60)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("fetching", "timing")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shown == [{"fetching", "timing"}] * 2
    assert displays[0].finished
    assert not displays[0].live.is_started
    with bars.task("again", None), bars.task("inner", 1):
        assert len(displays) == 2
    assert not displays[1].live.is_started


def test_work_of_unknown_length_has_no_end() -> None:
    assert draw_bar("waiting", 0, None).strip() == "waiting <progress></progress>"
