"""``run.py watch``: classify the images that appear in a folder, each once."""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lesiontk.deploy.runner.classifier import Classifier, import_picture
from lesiontk.deploy.runner.command import Call, Outcome, seconds
from lesiontk.deploy.runner.engine_choice import open_classifier
from lesiontk.deploy.runner.results import FileState, Results
from lesiontk.deploy.runner.self_test import require_expected_outputs

HELP = "classify the images that appear in a folder"
TEMPORARY = (".part", ".partial", ".tmp", ".temp", ".crdownload", ".filepart", "~")
INCOMPLETE = ("empty", "truncated", "unreadable")
"""Reasons that a file which is still being written can have."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("results", type=Path, metavar="RESULTS.sqlite", help="outside the folder")
    parser.add_argument("--interval", type=seconds, default=1.0, help="seconds between scans")
    parser.add_argument(
        "--settle", type=seconds, default=2.0, help="seconds without change before a file is read"
    )
    parser.add_argument(
        "--patience",
        type=seconds,
        default=60.0,
        help="seconds without change before an incomplete image is refused",
    )
    parser.add_argument("--once", action="store_true", help="end when nothing waits")


def run(call: Call) -> Outcome:
    """Watch until SIGTERM or SIGINT, or with ``--once`` until every file has a result."""
    call.require_files()
    options = call.options
    if not options.folder.is_dir():
        raise ValueError(f"{options.folder} is not a folder; expected one to watch")
    if options.folder.resolve() in options.results.resolve().parents:
        raise ValueError(
            f"{options.results} is in the folder that is watched, and would be classified itself; "
            f"expected a database outside {options.folder}"
        )
    import_picture()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with Results(options.results, call.files.sums_sha256) as results:
        watcher = watch_folder(call, results, stop)
    document = {"classified": watcher.classified, "refused": watcher.refused}
    return Outcome(document, "classified {classified}, refused {refused}".format(**document))


def watch_folder(call: Call, results: Results, stop: threading.Event) -> Watcher:
    """Watch until `stop`, or with ``--once`` until nothing waits, and return the watcher."""
    options = call.options
    with open_classifier(call.bundle, options.runtime, options.threads) as classifier:
        require_expected_outputs(classifier, call.files)
        sys.stderr.write(f"{call.bundle.name}: watching {options.folder}\n")
        sys.stderr.flush()
        watcher = Watcher(options.folder, results, classifier, options.settle, options.patience)
        while not stop.is_set():
            waiting = watcher.scan(stop)
            if options.once and not waiting:
                break
            stop.wait(options.interval)
    return watcher


class Watcher:
    """Looks through a folder again and again; times are of a clock that is never set.

    A file is read when it did not change for `settle` seconds. One that is then incomplete is read
    again when it changes, and refused after `patience` seconds without change.
    """

    def __init__(
        self,
        folder: Path,
        results: Results,
        classifier: Classifier,
        settle: float,
        patience: float,
    ) -> None:
        self._folder, self._results, self._classifier = folder, results, classifier
        self._settle, self._patience = settle, patience
        self._since: dict[FileState, float] = {}
        self._done: set[FileState] = set()
        self._tried: set[FileState] = set()
        self._unreadable: set[str] = set()
        self.classified = self.refused = 0

    def scan(self, stop: threading.Event) -> int:
        """Classify the files that are whole, and return the number of those that wait."""
        found = self._list_files()
        self._done &= set(found)
        self._tried &= set(found)
        now = time.monotonic()
        self._since = {
            state: self._since.get(state, now) for state in found if state not in self._done
        }
        waiting = 0
        for state, since in sorted(self._since.items(), key=lambda pair: (pair[1], pair[0].path)):
            if stop.is_set():
                break
            if self._results.is_known(state) or self._handle(state, time.monotonic() - since):
                self._done.add(state)
            else:
                waiting += 1
        return waiting

    def _list_files(self) -> list[FileState]:
        """Return the files of now; a folder that cannot be read is named once, until it can."""
        errors: list[OSError] = []
        found = list(list_files(self._folder, errors.append))
        for error in errors:
            if error.filename not in self._unreadable:
                sys.stderr.write(f"cannot read the folder {error.filename!r}: {error.strerror}\n")
                sys.stderr.flush()
        self._unreadable = {error.filename for error in errors}
        return found

    def _handle(self, state: FileState, unchanged: float) -> bool:
        """Return whether the file has a result now."""
        patient = unchanged < self._patience
        if unchanged < self._settle or (patient and state in self._tried):
            return False
        picture = import_picture()
        path = self._folder / os.fsdecode(state.path)
        digest = ""
        try:
            data = picture.read_bytes(path)
            digest = hashlib.sha256(data).hexdigest()
            if read_state(self._folder, path) != state:
                return False  # it changed meanwhile: the next scan sees another state
            if self._results.note_touched(state, digest):
                return True
            prediction = self._classifier.classify_bytes(data, state.name)
        except picture.PictureError as error:
            if error.reason in INCOMPLETE and patient:
                self._tried.add(state)
                return False
            self._results.refuse(state, digest, str(error))
            self.refused += 1
            return True
        self._results.record(state, digest, prediction)
        self.classified += 1
        return True


def list_files(folder: Path, report: Callable[[OSError], object]) -> Iterator[FileState]:
    """Yield the regular files below a folder that are neither hidden nor temporary.

    Links are not followed, so nothing outside the folder is read. `report` gets the error of each
    folder that cannot be read, such as one that is no longer there.
    """
    for directory, folders, names in os.walk(folder, onerror=report):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.startswith(".") or name.lower().endswith(TEMPORARY):
                continue
            state = read_state(folder, Path(directory, name))
            if state is not None:
                yield state


def read_state(folder: Path, path: Path) -> FileState | None:
    """Return the state of a regular file, or None of anything else."""
    try:
        found = path.lstat()
    except OSError:
        return None  # it was removed
    if not stat.S_ISREG(found.st_mode):
        return None
    relative = os.fsencode(os.path.relpath(path, folder))
    return FileState(relative, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
