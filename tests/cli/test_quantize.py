"""`quantize --int8` makes the engines that there can be, and tells why another cannot."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from lesiontk.backends.backend import Quantization
from lesiontk.cli.main import cli
from lesiontk.errors import DataError, GateFailedError
from lesiontk.evaluate.comparison import Agreement
from lesiontk.store import Store
from lesiontk.workflow import convert as workflow

GELU = DataError("tflite_float32.tflite has TFL_GELU, which tf2onnx does not convert.")
DRIFTED = GateFailedError("onnx:int8 does not match its model.")
FACTS = {"file": "engine", "size_bytes": 1000}
KNOWN = SimpleNamespace(
    **FACTS,
    verification=SimpleNamespace(agreement=Agreement(256, 0.99, 0.001, 0.01, 0.0)),
    quantization=Quantization(),
)


@pytest.fixture
def quantize(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command on a model whose conversions fail as given, by target."""

    def run(failures: dict[str, Exception], *options: str) -> Result:
        def build_step(plan: Any, name: str, store: Store, done: Any) -> Any:
            target = name.removeprefix("engine:")
            if target in failures:
                raise failures[target]
            return SimpleNamespace(
                name=target,
                path=tmp_path,
                facts=FACTS,
                file=lambda name: tmp_path / name,
                read_facts=lambda record: KNOWN,
            )

        monkeypatch.setattr(workflow, "build_step", build_step)
        monkeypatch.setattr(workflow, "continue_from", lambda *given: (None, {}))
        monkeypatch.setattr(workflow, "choose_background_targets", lambda *given: ())
        monkeypatch.setattr(Store, "resolve", lambda self, reference, kind=None: None)
        environment = {"LESIONTK_WORKSPACE": str(tmp_path / "workspace"), "COLUMNS": "200"}
        return CliRunner().invoke(cli, ["quantize", "--int8", *options], env=environment)

    return run


def test_a_target_that_cannot_be_made_does_not_cost_the_others(quantize: Any) -> None:
    result = quantize({"onnx:int8": GELU})
    assert result.exit_code == 0, result.output
    assert "tflite:int8" in result.output
    assert f"onnx:int8: not made: {GELU}" in result.output


def test_json_has_the_reason_in_the_engines_place(quantize: Any) -> None:
    document = json.loads(quantize({"onnx:int8": GELU}, "--json").stdout)
    assert document["onnx:int8"] == {"refused": str(GELU)}
    assert document["tflite:int8"]["artefact"] == "tflite:int8"


def test_an_engine_that_is_not_its_model_fails_after_the_others_are_made(quantize: Any) -> None:
    result = quantize({"onnx:int8": DRIFTED})
    assert isinstance(result.exception, GateFailedError | SystemExit)
    assert result.exit_code == 1
    assert "tflite:int8" in result.output


def test_where_none_can_be_made_the_command_fails(quantize: Any) -> None:
    result = quantize({"onnx:int8": GELU, "tflite:int8": GELU})
    assert result.exit_code != 0
    assert "not made" not in result.output


def test_a_fault_of_lesiontk_is_no_refusal(quantize: Any) -> None:
    result = quantize({"onnx:int8": ZeroDivisionError("division by zero")})
    assert isinstance(result.exception, ZeroDivisionError)
