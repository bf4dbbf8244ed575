"""Which recalls a compressed network is held to, and what it remembers."""

from __future__ import annotations

import pytest

from lesiontk.compress.model_history import derive_model, recalls_to_keep
from lesiontk.records import EngineFootprint, Footprint, ModelFacts
from lesiontk.stages.sparsify import Sparsity
from lesiontk.technique import SHARED_VALUES, ZEROS, list_left
from tests.model_facts import make_facts, make_step


def model(*stages: str) -> ModelFacts:
    """A model that these stages made, one after the other; the nth had the recall n / 10."""
    recalls = [{"mel": number / 10} for number in range(1, len(stages) + 1)]
    *history, _ = (make_step(s, recalls=r) for s, r in zip(stages, recalls, strict=True))
    return make_facts(stages[-1], recalls=recalls[-1], history=tuple(history))


@pytest.mark.parametrize(
    ("before", "stage", "kept"),
    [
        (["train"], "prune", 0.1),
        (["import"], "qat", 0.1),
        (["train", "distill"], "prune", 0.2),  # distillation was the end of its training
        (["train", "prune"], "distill", 0.1),
        (["train", "resize", "prune"], "qat", 0.1),
        (["train"], "distill", None),
    ],
)
def test_it_is_that_of_the_network_as_it_was_trained(
    before: list[str], stage: str, kept: float | None
) -> None:
    assert recalls_to_keep(model(*before), stage) == ({} if kept is None else {"mel": kept})


def test_every_class_is_kept_whose_recall_is_told() -> None:
    trained = make_facts(recalls={"mel": 0.1, "nv": 0.7})
    assert recalls_to_keep(trained, "prune") == {"mel": 0.1, "nv": 0.7}


def test_a_child_remembers_what_was_done_and_not_what_was_measured() -> None:
    engine = EngineFootprint(2, 1, 0.5)
    change = Sparsity("2:4", 0.5, ())
    sparse = make_facts(
        "sparsify",
        change,
        history=(make_step("train"),),
        footprint=Footprint("tflite:float32", 9, engine, engine),
    )
    child = derive_model(sparse, "qat", change)
    assert [step.stage for step in child.history] == ["train", "sparsify"]
    assert child.history[-1].read_change(Sparsity) == change
    assert child.history[-1].footprint is None  # it differs between runs


@pytest.mark.parametrize("seen", ["parent", "weights"])
def test_what_may_have_seen_the_test_images_says_so_in_all_that_is_made_of_it(seen: str) -> None:
    parent = make_facts(may_have_seen_test=seen == "parent")
    change = Sparsity("2:4", 0.5, ())
    child = derive_model(parent, "sparsify", change, may_have_seen_test=seen == "weights")
    assert child.may_have_seen_test
    assert not derive_model(make_facts(), "sparsify", change).may_have_seen_test


def test_the_structure_of_a_model_is_what_the_techniques_of_its_line_left() -> None:
    assert list_left(model("train", "prune").line) == frozenset()
    assert list_left(model("train", "sparsify").line) == {ZEROS}
    assert list_left(model("train", "sparsify", "cluster").line) == {ZEROS, SHARED_VALUES}
