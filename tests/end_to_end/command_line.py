"""Calling ``lesiontk`` as a person would, in this process or in one of its own."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lesiontk.cli.main import main


@dataclass(frozen=True)
class Call:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)


def call_lesiontk(*arguments: object, workspace: Path | None = None) -> Call:
    """Run a command in this process, where TensorFlow is loaded already."""
    chosen = [] if workspace is None else ["--workspace", str(workspace)]
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["lesiontk", *map(str, arguments), *chosen])
        code = _run_main()
    return Call(code, out.getvalue(), err.getvalue())


def _run_main() -> int:
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    raise AssertionError("main() returned; expected it to end with an exit code")


def start_lesiontk(*arguments: object, workspace: Path) -> subprocess.Popen[str]:
    """Start the installed command in a process of its own; its log can be read from ``stderr``."""
    command = [Path(sys.executable).with_name("lesiontk"), *arguments, "--workspace", workspace]
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
