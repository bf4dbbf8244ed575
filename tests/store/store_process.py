"""Builds one text in a process of its own.

``python -m tests.store.store_process WORKSPACE [wait [TEXT]]``.

With ``wait`` the stage, once it has written something, says ``running`` and goes on when a line
comes on standard input. The end is a line with the artefact's name and how often the stage ran.
The log goes to standard error.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from lesiontk.stage import Context
from lesiontk.store import Store
from tests.fake_stages import TextConfig, TextStage


def wait(context: Context) -> None:
    (context.scratch / "checkpoint").write_text("half")
    sys.stdout.write("running\n")
    sys.stdout.flush()
    sys.stdin.readline()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    stage = TextStage(wait if sys.argv[2:3] == ["wait"] else None)
    config = TextConfig(text=sys.argv[3]) if sys.argv[3:] else TextConfig()
    artefact = Store(Path(sys.argv[1])).build(stage, config, {})
    sys.stdout.write(f"{artefact.name} {stage.runs}\n")
