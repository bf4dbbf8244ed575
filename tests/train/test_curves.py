"""What TensorBoard reads is copied without the name of the machine that wrote it."""

from __future__ import annotations

from pathlib import Path

from lesiontk.train.curves import copy_events


def test_logs_keep_their_order_and_lose_host_process_and_time(tmp_path: Path) -> None:
    source = tmp_path / "scratch"
    source.mkdir()
    (source / "events.out.tfevents.1795980999.somebodys-laptop.99.0.v2").write_text("second")
    (source / "events.out.tfevents.1795980723.somebodys-laptop.87.0.v2").write_text("first")
    copy_events(source, tmp_path / "log")
    copied = {path.name: path.read_text() for path in (tmp_path / "log").iterdir()}
    assert copied == {
        "events.out.tfevents.0000000001": "first",
        "events.out.tfevents.0000000002": "second",
    }
