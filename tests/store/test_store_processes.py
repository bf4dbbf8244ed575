"""Several processes share a workspace, and one may be killed at any moment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lesiontk.store import Store
from tests.fake_stages import TextConfig, TextStage

ROOT = Path(__file__).parents[2]


@contextmanager
def process(workspace: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run `tests.store.store_process`; it is gone when the context ends."""
    command = [sys.executable, "-m", "tests.store.store_process", str(workspace), *arguments]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def read_line(stream: object) -> str:
    return stream.readline().strip()  # type: ignore[attr-defined,no-any-return]


def test_two_processes_that_want_one_key_make_it_once(store: Store) -> None:
    with process(store.workspace, "wait") as first:
        assert read_line(first.stdout) == "running"
        with process(store.workspace) as second:
            waiting = read_line(second.stderr)
            assert waiting.endswith("another process is making it; waiting")
            made, _ = first.communicate("go on\n")
            reused, log = second.communicate()
    (text,) = store.list_artefacts()
    assert made.split() == [text.name, "1"]
    assert reused.split() == [text.name, "0"]
    assert f"{text.name}: reused" in log
    assert store.damage(text.path) is None


def test_a_killed_process_leaves_no_artefact_and_the_next_recovers(store: Store) -> None:
    with process(store.workspace, "wait") as killed:
        assert read_line(killed.stdout) == "running"
        killed.kill()
        assert killed.wait() == -9
    assert store.list_artefacts() == []
    assert store.failures() == []
    left = list(store.workspace.glob("*/text.txt"))
    assert len(left) == 1, "the test must have killed it in the middle of its work"

    found: list[str] = []
    stage = TextStage(lambda context: found.extend(p.name for p in context.scratch.iterdir()))
    text = store.build(stage, TextConfig(), {})
    assert stage.runs == 1
    assert found == ["checkpoint"]
    assert store.list_artefacts() == [text]
    assert store.damage(text.path) is None
    assert not list(store.workspace.glob("*.tmp"))
    assert not (store.workspace / ".scratch" / text.name).exists()


def test_what_a_killed_process_left_is_removed_by_the_next_of_any_key(store: Store) -> None:
    with (
        process(store.workspace, "wait") as killed,
        process(store.workspace, "wait", "other") as busy,
    ):
        assert read_line(killed.stdout) == read_line(busy.stdout) == "running"
        killed.kill()
        killed.wait()
        assert len(list(store.workspace.glob(".*.tmp"))) == 2
        store.build(TextStage(), TextConfig(text="a third"), {})
        assert len(list(store.workspace.glob(".*.tmp"))) == 1
        made, _ = busy.communicate("go on\n")  # who is alive is left alone
    assert made.split()[0] in [artefact.name for artefact in store.list_artefacts()]
