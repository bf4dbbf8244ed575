"""Asks engine files for a prediction, each in a process of its own: a runtime that crashes takes
only that with it. Prints a line of JSON for each: file, exit code or signal, last words.

    python predict_worker.py PICTURE INTACT ENGINE…

INTACT is an engine of the same kind; it is asked first, so that every child finds all loaded.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from lesiontk.cli.main import main

SECONDS = 30


def ask(engine: str, picture: str) -> tuple[int, str]:
    """Return the exit code of ``lesiontk predict`` and what it printed; in a child alone."""
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["lesiontk", "predict", engine, picture, "--json"]
    code = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
    return code, out.getvalue() if code == 0 else err.getvalue()[-600:]


def run(engine: str, picture: str) -> dict[str, object]:
    """Return what became of one file."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        signal.alarm(SECONDS)
        code, words = ask(engine, picture)
        os.write(writer, words.encode()[:60_000])
        os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        words = stream.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    return {"file": Path(engine).name, "code": os.waitstatus_to_exitcode(status), "words": words}


if __name__ == "__main__":
    _, picture, intact, *engines = sys.argv
    assert ask(intact, picture)[0] == 0
    for engine in engines:
        sys.stdout.write(json.dumps(run(engine, picture)) + "\n")
