"""What a model says of itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lesiontk.compress.model_history import ModelOrigin
from lesiontk.data.tasks import load_task, task_of_engine
from lesiontk.records import EngineSpec
from lesiontk.stages.model_artefact import LEAKY, SEEN_UNKNOWN, describe_model
from tests.image_sets import make_image_set, make_prepared, make_rows

IMAGES = make_image_set(make_rows("train", {"mel": 1, "nv": 1, "bkl": 1}))


def describe(*, leaky: bool = False, seen: bool = False) -> EngineSpec:
    origin = ModelOrigin(stage="train", architecture="tiny", may_have_seen_test=seen)
    return describe_model(IMAGES, make_prepared(leaky=leaky), "tiny", origin)


@pytest.mark.parametrize("leaky", [True, False])
def test_a_leaking_split_is_said_in_the_file(leaky: bool) -> None:
    assert (LEAKY in describe(leaky=leaky).notice) is leaky


@pytest.mark.parametrize("seen", [True, False])
def test_what_may_have_seen_the_test_images_says_so_in_the_file(seen: bool) -> None:
    spec = describe(seen=seen)
    assert spec.may_have_seen_test is seen
    assert (SEEN_UNKNOWN in spec.notice) is seen


def test_the_file_has_the_task_and_the_terms_of_the_images() -> None:
    spec = describe()
    seven = load_task("seven_class")
    assert task_of_engine(replace(spec, labels=seven.labels)) == seven
    assert spec.licence == "CC0"
