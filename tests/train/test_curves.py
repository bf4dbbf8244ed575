"""What TensorBoard reads is copied without the name of the machine that wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lesiontk.train.curves import copy_events, plot_curves


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


NAMES = ("balanced_accuracy", "accuracy", "macro_auc", "log_loss", "recall[mel]")


def draw(path: Path, *, loss: float = 0.5, best: int = 2) -> NDArray[np.uint8]:
    rows = [{"epoch": epoch, "loss": 1.0, **dict.fromkeys(NAMES, 0.5)} for epoch in (1, 2, 3)]
    rows[1]["loss"] = loss
    plot_curves(rows, best, path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("L"))


@pytest.mark.parametrize(
    ("changed", "sides"), [({"loss": 0.9}, [True, False]), ({"best": 3}, [True, True])]
)
def test_the_loss_is_drawn_on_the_left_and_the_best_epoch_on_both_sides(
    tmp_path: Path, changed: dict[str, Any], sides: list[bool]
) -> None:
    pictures = draw(tmp_path / "one.png"), draw(tmp_path / "other.png", **changed)
    assert pictures[0].shape == (352, 880)
    differs = [(a != b).any() for a, b in zip(*(np.split(p, 2, 1) for p in pictures), strict=True)]
    assert differs == sides
