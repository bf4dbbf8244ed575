"""Modules run as processes of one that has loaded TensorFlow: each starts in milliseconds.

Run as ``python -m tests.preloaded``; it reads one JSON list ``[folder, module, argument, …]`` a
line and answers with one ``[exit code, standard error]``.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from subprocess import PIPE, Popen

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-W", "ignore", "-m", __name__]
"""Taken now, as `Popen` is: tests exchange both."""


class PreloadedProcess:
    """Forks for each module that it runs; it starts with the first."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        """`settings` are added to the environment of now; a command changes TMPDIR for a while."""
        self._environment = {**os.environ, **settings}
        self._process: Popen[str] | None = None

    def run(self, module: str, *arguments: str) -> tuple[int, str]:
        """Run a module as ``python -m`` does; return its exit code and standard error."""
        if self._process is None:
            self._process = Popen(
                COMMAND, stdin=PIPE, stdout=PIPE, text=True, env=self._environment, cwd=ROOT
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(Path.cwd()), module, *arguments]) + "\n")
        self._process.stdin.flush()
        code, errors = json.loads(self._process.stdout.readline())
        return code, errors

    def close(self) -> None:
        """End the process, if it runs."""
        if self._process is not None:
            self._process.communicate()


def serve() -> None:
    """Answer until standard input ends."""
    from lesiontk.system.frameworks import import_tensorflow

    import_tensorflow()
    import tf2onnx  # noqa: F401

    import lesiontk.backends.onnx  # noqa: F401

    for line in sys.stdin:
        with tempfile.TemporaryFile("w+") as errors:
            child = os.fork()
            if child == 0:
                folder, module, *arguments = json.loads(line)
                os.chdir(folder)
                os.dup2(errors.fileno(), sys.stderr.fileno())
                os.dup2(errors.fileno(), sys.stdout.fileno())
                sys.argv = [module, *arguments]
                runpy.run_module(module, run_name="__main__", alter_sys=True)
                return
            _, status = os.waitpid(child, 0)
            errors.seek(0)
            answer = [os.waitstatus_to_exitcode(status), errors.read()]
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    serve()
