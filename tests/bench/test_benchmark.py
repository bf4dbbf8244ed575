"""The rows of a benchmark say whether they are of the network before compression."""

from __future__ import annotations

from typing import Any

import pytest

from lesiontk.bench.benchmark import EngineRow
from lesiontk.evaluate.verdict import GateVerdict
from lesiontk.stage import EngineName

ROW: dict[str, Any] = {
    "engine": "engine-0123456789ab",
    "target": "tflite:float32",
    "backend": "tflite",
    "precision": "float32",
    "threads": 1,
    "size_bytes": 1,
}
VERDICT: dict[str, Any] = {
    "engine": "tflite:int8",
    "gate": "accuracy >= parent - 0.01",
    "metric": "accuracy",
    "comparand": "loss",
    "outcome": "failed",
    "limit": 0.01,
    "measured": 0.2,
}


@pytest.mark.parametrize("reference", [True, False])
def test_a_row_is_read_as_it_was_written(reference: bool) -> None:
    row = EngineRow.from_document({**ROW, "reference": reference})
    assert row.key == ("tflite:float32@trained" if reference else "tflite:float32")
    assert (row.key.target, row.key.reference) == ("tflite:float32", reference)
    assert EngineRow.from_document(row.to_document()) == row


def test_earlier_documents_mark_the_reference_in_the_name() -> None:
    earlier = EngineRow.from_document({**ROW, "target": "tflite:float32@trained"})
    assert earlier == EngineRow.from_document({**ROW, "reference": True})
    verdict = GateVerdict.from_document({**VERDICT, "parent": "tflite:float32@trained"})
    assert (verdict.parent, verdict.reference) == ("tflite:float32", True)
    assert "the loss against tflite:float32@trained is 0.2" in verdict.describe()


def test_a_name_is_a_text_and_stays_what_it_is() -> None:
    name = EngineName("tflite:float32", reference=True)
    assert {name: 1}["tflite:float32@trained"] == 1
    assert EngineName(name) is name
