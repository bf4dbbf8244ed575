"""The whole chain through the command line, on tiny synthetic pictures."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.end_to_end.command_line import Call, call_lesiontk
from tests.one_at_a_time import one_at_a_time

TRAINING = {  # seconds instead of minutes
    "data.synthetic.lesions": 105,
    "data.synthetic.image_size": 48,
    "data.image_size": 32,
    "train.epochs": 6,
    "train.learning_rate": 0.003,
    "train.ema": 0,
}

CHAIN = {
    **TRAINING,
    "calibration.images": 28,
    "verify.images": 16,
    "verify.min_agreement_int8": 0.6,  # six epochs leave classes close to each other
    "bench.rounds": 20,
    "bench.queries": 2,
    "bench.repeats": 0,
    "bench.per_layer": True,
    "evaluate.resamples": 100,
    "gate": '["macro_auc >= parent - 0.5 @ 0.95"]',
}

DEMO = {**CHAIN, "bench.scenarios": "[single_stream]"}
"""Each scenario is measured in other processes; `tests.bench` has them all."""


def set_keys(settings: dict[str, Any]) -> list[str]:
    return [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]


class Chain:
    """The workspace of a finished ``lesiontk demo``, and what the command printed.

    Workers that name the same one share it.
    """

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        printed = workspace.with_suffix(".json")
        with one_at_a_time(workspace.with_suffix(".lock")):
            if not printed.is_file():
                call = call_lesiontk("demo", "--json", *set_keys(DEMO), workspace=workspace)
                printed.write_text(json.dumps(asdict(call)))
        self.call = Call(**json.loads(printed.read_text()))
        assert self.call.code == 0, self.call.err

    def folder(self, kind: str) -> Path:
        """The one artefact of a kind."""
        (found,) = self.workspace.glob(f"{kind}-*")
        return found

    def engine(self, target: str) -> Path:
        """The file of an engine."""
        (found,) = self.workspace.glob(f"engine-*/{target.replace(':', '_')}.*")
        return found
