#!/usr/bin/env python3
"""Test this bundle on this machine, and classify images with it.

    python3 run.py self-test
    python3 run.py predict picture.jpg
    python3 run.py evaluate FOLDER LABELS.csv
    python3 run.py bench --json > device.json
    python3 run.py serve
    python3 run.py watch FOLDER RESULTS.sqlite

Research software, not a medical device. Needs Python 3.8 or later, NumPy, the runtime in README.md,
and Pillow to read images; lesiontk is not needed.

Exit codes: 0 as expected; 1 outputs differ from those expected; 2 a file is
missing, damaged or rejected; 3 a missing requirement.
"""

from __future__ import annotations

import os
import sys

# Python would import any module beside this file, compiled or in folders, before installed packages
# of that name: `ListedModules` imports only the bundle's own modules.
HERE = os.path.split(os.path.realpath(__file__))[0]
sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry) != HERE]

# ruff: noqa: E402
import argparse
import hashlib
import importlib
import json
import re
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

FOLDER = Path(HERE)
COMMANDS = ("self-test", "predict", "evaluate", "bench", "serve", "watch")
COPY = "A bundle with changed files does not run: copy it again"


class DamagedError(Exception):
    """Code of the bundle is changed or not listed."""

    exit_code = 2


class MissingRequirementError(Exception):
    """NumPy is missing."""

    exit_code = 3


class ListedModules:
    """An import hook for the modules that SHA256SUMS lists, with precedence over others.

    Nothing else in the folder is imported: no other file, compiled file or package.
    """

    def __init__(self, folder: Path, listed: dict[str, str]) -> None:
        self._folder = folder
        self._listed = listed

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return the spec of a module of the bundle; None for others."""
        place = name.replace(".", "/")
        for file in (f"{place}.py", f"{place}/__init__.py"):
            if file in self._listed:
                path = self._folder / file
                loader = ListedSource(name, path, self._listed[file])
                package = file.endswith("/__init__.py")  # all modules are found by this hook
                return ModuleSpec(name, loader, origin=str(path), is_package=package)
        if path is None and (self._folder / f"{place}.py").is_file():
            raise DamagedError(f"{place}.py is not listed in SHA256SUMS. {COPY}")
        return None


class ListedSource(SourceFileLoader):
    """A loader that compiles the verified bytes and ignores compiled files."""

    def __init__(self, name: str, path: Path, digest: str) -> None:
        super().__init__(name, str(path))
        self._digest = digest

    def get_code(self, fullname: str) -> CodeType:
        """Return the module's code. Raises `DamagedError` if its file was changed."""
        try:
            content = self.get_data(self.path)
        except OSError as error:
            raise DamagedError(f"{Path(self.path).name} cannot be read: {error}. {COPY}") from error
        if hashlib.sha256(content).hexdigest() != self._digest:
            raise DamagedError(f"{Path(self.path).name} was changed. {COPY}")
        code: CodeType = compile(content, self.path, "exec", dont_inherit=True)
        return code


def read_checksums(folder: Path) -> dict[str, str]:
    """Return file -> SHA-256 from SHA256SUMS. Raises `DamagedError` if it cannot be read."""
    try:
        lines = read_text(folder / "SHA256SUMS").splitlines()
    except (OSError, ValueError) as error:
        raise DamagedError(f"SHA256SUMS cannot be read: {error}. {COPY}") from error
    listed: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        digest, _, name = line.partition("  ")
        if not re.fullmatch("[0-9a-f]{64}", digest) or not name or name in listed:
            raise DamagedError(f"line {number} of SHA256SUMS is broken. {COPY}")
        listed[name] = digest
    return listed


def read_text(path: Path) -> str:
    """Return a file's text. Raises `OSError` for a named pipe, which would block."""
    if path.exists() and not path.is_file():
        raise OSError(f"{path.name} is not a regular file")
    return path.read_text(encoding="utf-8")


def parse_arguments(
    words: list[str] | None, commands: dict[str, ModuleType], runtimes: list[str]
) -> argparse.Namespace:
    """Return the options of the command line, or of its `words`."""
    from lesiontk.deploy.runner.command import positive

    parser = argparse.ArgumentParser(
        prog="run.py",
        description=(__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = parser.add_subparsers(dest="command", metavar="COMMAND")
    known.required = True
    for name, command in commands.items():
        options = known.add_parser(name, help=command.HELP)
        command.add_options(options)
        options.add_argument("--json", action="store_true", help="one JSON document")
        options.add_argument("--threads", type=positive, default=1)
        options.add_argument("--runtime", choices=runtimes)
    return parser.parse_args(words)


def run_command(words: list[str] | None) -> tuple[Any, bool]:
    """Return the outcome of a command line, and whether it is printed as JSON."""
    listed = read_checksums(FOLDER)
    sys.meta_path.insert(0, ListedModules(FOLDER, listed))
    try:
        import numpy  # noqa: F401 - every command needs it
    except ImportError as error:
        raise MissingRequirementError(f"{error}. pip install -r requirements.txt") from error
    from lesiontk.deploy.runner.command import Call
    from lesiontk.deploy.runner.contract import read_bundle
    from lesiontk.deploy.runner.integrity import check_files

    key = os.environ.get("LESIONTK_PUBLIC_KEY")
    if key is not None:  # an empty name must not skip the check
        from lesiontk.deploy.runner.signature import require_signature

        require_signature(FOLDER, Path(key))
    files = check_files(FOLDER, listed)  # before any other file of the folder is used
    bundle = read_bundle(FOLDER, read_text(FOLDER / "bundle.json"))
    commands = {name: importlib.import_module(name.replace("-", "_")) for name in COMMANDS}
    options = parse_arguments(words, commands, list(bundle.runtimes))
    return commands[options.command].run(Call(bundle, files, options)), options.json


def main(words: list[str] | None = None) -> int:
    """Run the command line, or its `words`, and return the exit code."""
    try:
        outcome, as_json = run_command(words)
    except Exception as error:  # noqa: BLE001 - the runtimes' exceptions have no common base
        code = getattr(error, "exit_code", 2)
        kind = "missing requirement: " if code == 3 else "error: "
        sys.stderr.write(f"{kind}{str(error) or type(error).__name__}\n")
        return int(code)
    text = json.dumps(outcome.document, indent=1) if as_json else outcome.text
    return int(outcome.code) if write_output(text) else 2


def write_output(text: str) -> bool:
    """Return whether standard output, which may be ASCII, closed or full, received the text."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        sys.stderr.write(f"error: the output cannot be written: {error}\n")
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
