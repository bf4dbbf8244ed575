"""What a model says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lesiontk.records import MAY_HAVE_SEEN_TEST, Artefact
from lesiontk.stage import Context
from lesiontk.stages.model_artefact import LEAKY, SEEN_UNKNOWN, describe_model
from tests.image_sets import make_image_set, make_rows

IMAGES = make_image_set(make_rows("train", {"mel": 1, "nv": 1, "bkl": 1}))


class Model:
    def count_params(self) -> np.int64:
        return np.int64(7)


def describe(facts: dict[str, Any], folder: Path, own: dict[str, Any] | None = None) -> str:
    known = {"licence": "CC0", "preprocessing": {"image_size": 8}, "task": "seven_class"}
    source = Artefact(folder, {"facts": {**known, **facts}})
    spec, described = describe_model(
        Model(), IMAGES, source, Context(folder, folder, "tiny"), own or {}
    )
    assert described["parameters"] == 7
    assert spec.may_have_seen_test is bool(own)
    assert spec.extra["task_definition"]["name"] == "seven_class"
    return spec.notice


@pytest.mark.parametrize(("leaky", "said"), [({"leaky": True}, True), ({"leaky": False}, False)])
def test_a_leaking_split_is_said_in_the_file(
    leaky: dict[str, bool], said: bool, tmp_path: Path
) -> None:
    assert describe(leaky, tmp_path).endswith(LEAKY) is said


def test_images_of_an_early_workspace_leak_nothing_and_have_their_task_by_name(
    tmp_path: Path,
) -> None:
    assert not describe({}, tmp_path).endswith(LEAKY)


def test_what_may_have_seen_the_test_images_says_so_in_the_file(tmp_path: Path) -> None:
    assert describe({}, tmp_path, {MAY_HAVE_SEEN_TEST: True}).endswith(SEEN_UNKNOWN)
    assert SEEN_UNKNOWN not in describe({}, tmp_path)
