"""Which recalls a compressed network is held to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lesiontk.compress.model_history import inherit_facts, recalls_to_keep, structure_facts
from lesiontk.records import Artefact


def model(*stages: str) -> Artefact:
    """A model that these stages made, one after the other; the nth had the recall n / 10."""
    line: list[dict[str, Any]] = [
        {"stage": stage, "validation": {"recall[mel]": number / 10}}
        for number, stage in enumerate(stages, start=1)
    ]
    facts = {"critical": "mel", "history": line[:-1], "validation": line[-1]["validation"]}
    manifest = {"stage": {"name": stages[-1]}, "facts": facts}
    return Artefact(Path("model-1"), manifest)


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
    trained = model("train")
    trained.manifest["facts"]["recalls"] = {"mel": 0.1, "nv": 0.7}
    assert recalls_to_keep(trained, "prune") == {"mel": 0.1, "nv": 0.7}


def test_a_child_states_what_it_holds_and_remembers_what_was_done() -> None:
    sparse = model("train", "sparsify")
    told = {"pattern": "2:4", "sparsity": 0.5}
    sparse.manifest["facts"].update(architecture="cnn", sparsified=told, footprint={"n": 9})
    child = inherit_facts(sparse)
    assert structure_facts(child) == {"sparsified": told}
    assert child["history"][-1]["sparsified"] == told
    assert "footprint" not in child["history"][-1]  # it was measured, and differs between runs
    pruned = model("train", "prune")
    pruned.manifest["facts"].update(architecture="cnn", pruned={"macs": [2, 1]})
    child = inherit_facts(pruned)
    assert child["history"][-1]["pruned"] == {"macs": [2, 1]}
    assert structure_facts(child) == {}


def test_a_child_states_the_weights_that_training_started_from() -> None:
    weights = {"file": "lite2.pth", "sha256": "a" * 64}
    trained = model("train")
    trained.manifest["facts"].update(architecture="cnn", initial_weights=weights)
    assert inherit_facts(trained)["initial_weights"] == weights
    del trained.manifest["facts"]["initial_weights"]
    assert "initial_weights" not in inherit_facts(trained)
