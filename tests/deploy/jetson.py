"""A Jetson's runner in this process, where TensorRT has a stand-in."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lesiontk.backends.tensorrt import plan_cache
from tests.loose_modules import load_module

JETPACK6 = "jetson-orin-jetpack6"


def load_runner(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import the bundle's run.py here, where TensorRT has a stand-in."""
    run = load_module(bundle / "run.py")
    for path in bundle.glob("*.py"):
        monkeypatch.delitem(sys.modules, path.stem, raising=False)
    monkeypatch.setitem(sys.modules, "tensorrt_runtime", plan_cache)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))  # it adds its import hook
    return run


def self_test(run: ModuleType, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return what the self-test found."""
    code = run.main(["self-test", "--json", "--rounds", "2"])
    said = capsys.readouterr()
    assert said.err == ""
    found: dict[str, Any] = json.loads(said.out)
    assert code == (0 if found["as_expected"] else 1)
    return found
