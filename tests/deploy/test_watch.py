"""The folder that a bundle watches: each picture gets one result, whatever ends the process."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lesiontk.data.picture_decoder import PictureError
from lesiontk.data.synthetic.dataset import render_view
from lesiontk.data.tasks import load_task
from lesiontk.deploy.runner import watch
from lesiontk.deploy.runner.results import FileState, Results, StorageError
from tests.deploy.bundles import call_runner, make_bundle

LABELS = load_task("seven_class").labels
FAST = ("--interval", "0.02", "--settle", "0.05", "--patience", "0.3")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(
        tmp_path_factory.mktemp("bundle") / "b", "tflite_int8.tflite", "linux-x86-64"
    )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Different pictures, as files."""
    path = tmp_path_factory.mktemp("pictures") / "picture.jpg"
    found = []
    for number in range(21):
        view = render_view(LABELS[number % 7], number, 0, 150)
        Image.fromarray(view[:130]).save(path)
        found.append(path.read_bytes())
    return found


def read_rows(path: Path) -> list[dict[str, Any]]:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute("SELECT * FROM results ORDER BY id")]


def start(bundle: Path, folder: Path, results: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(bundle / "run.py"), "watch", str(folder), str(results), *FAST, *words],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def test_every_file_gets_one_result(bundle: Path, pictures: list[bytes], tmp_path: Path) -> None:
    folder, results = tmp_path / "in", tmp_path / "results.sqlite"
    (folder / "day 1").mkdir(parents=True)
    for number, data in enumerate(pictures[:7]):
        (folder / "day 1" / f"{number}.jpg").write_bytes(data)
    (folder / "note.jpg").write_text("text named .jpg")
    (folder / "half.jpg").write_bytes(pictures[0][:900])
    (folder / "rest.part").write_bytes(pictures[0][:900])
    (folder / ".hidden.jpg").write_bytes(pictures[0])
    (folder / "link.jpg").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe.jpg")
    odd = ["'; DROP TABLE results; --.jpg", "new\nline.jpg", "ü %00 $(id).jpg"]
    for name in odd:
        (folder / name).write_bytes(pictures[8])
    Path(os.fsdecode(os.fsencode(folder) + b"/not-\xff-text.jpg")).write_bytes(pictures[9])
    words = ["watch", str(folder), str(results), *FAST, "--once"]
    done = call_runner(bundle, *words, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"classified": 11, "refused": 2}
    rows = {row["name"]: row for row in read_rows(results)}
    assert set(rows) == {
        *(f"day 1/{number}.jpg" for number in range(7)), *odd, "not-\\xff-text.jpg",
        "note.jpg", "half.jpg",
    }  # fmt: skip
    assert "expected a complete JPEG" in rows["note.jpg"]["reason"]
    assert "incomplete" in rows["half.jpg"]["reason"]
    shown = call_runner(bundle, "predict", "--json", str(folder / "day 1" / "3.jpg")).stdout
    (expected,) = json.loads(shown)["predictions"]
    assert json.loads(rows["day 1/3.jpg"]["prediction"]) == {**expected, "image": "day 1/3.jpg"}
    assert rows["day 1/3.jpg"]["label"] == expected["label"]
    # Again: nothing is classified twice, not even a file that was touched; new content is.
    os.utime(folder / "day 1" / "3.jpg")
    (folder / "day 1" / "4.jpg").write_bytes(pictures[11])
    again = json.loads(call_runner(bundle, *words, "--json").stdout)
    assert again == {"classified": 1, "refused": 0}
    names = Counter(row["name"] for row in read_rows(results))
    assert [name for name, number in names.items() if number > 1] == ["day 1/4.jpg"]


def kill_at_random(
    bundle: Path, pictures: list[bytes], tmp_path: Path, kills: int, seed: int
) -> None:
    """Drop pictures while the process is killed again and again; then let it finish."""
    folder, results = tmp_path / "in", tmp_path / "results.sqlite"
    folder.mkdir()
    chance = random.Random(seed)
    dropped: list[str] = []
    stop = threading.Event()

    def drop() -> None:
        while not stop.wait(0.03):
            name = f"{len(dropped):05}.jpg"
            data = pictures[len(dropped) % len(pictures)]
            with (folder / name).open("wb") as stream:  # in two halves
                stream.write(data[: len(data) // 2])
                stream.flush()
                stop.wait(0.01)
                stream.write(data[len(data) // 2 :])
            dropped.append(name)

    dropper = threading.Thread(target=drop)
    dropper.start()
    try:
        for _ in range(kills):
            process = start(bundle, folder, results)
            known = len(read_rows(results)) if results.exists() else 0
            limit = time.monotonic() + 30
            while time.monotonic() < limit:  # until it works, and then a random while
                with contextlib.suppress(sqlite3.OperationalError):
                    if len(read_rows(results)) > known:
                        break
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.3))
            process.kill()
            process.communicate()
    finally:
        stop.set()
        dropper.join()
    process = start(bundle, folder, results, "--once")
    process.communicate(timeout=300)
    assert process.returncode == 0
    rows = read_rows(results)
    assert Counter(row["name"] for row in rows) == Counter(dropped)  # none lost, none doubled
    assert {row["outcome"] for row in rows} == {"classified"}
    by_content = {row["sha256"]: row["label"] for row in rows}
    assert all(by_content[row["sha256"]] == row["label"] for row in rows)
    assert len(by_content) == min(len(pictures), len(dropped))
    with contextlib.closing(sqlite3.connect(results)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_killed_four_times_it_loses_and_doubles_nothing(
    bundle: Path, pictures: list[bytes], tmp_path: Path
) -> None:
    kill_at_random(bundle, pictures, tmp_path, kills=4, seed=1)


@pytest.mark.slow
def test_killed_at_50_random_moments_it_loses_and_doubles_nothing(
    bundle: Path, pictures: list[bytes], tmp_path: Path
) -> None:
    kill_at_random(bundle, pictures, tmp_path, kills=50, seed=2)


def test_it_ends_well_when_told_to(bundle: Path, pictures: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(pictures[0])
    process = start(bundle, tmp_path / "in", tmp_path / "r.sqlite")
    limit = time.monotonic() + 60
    while not ((tmp_path / "r.sqlite").exists() and read_classified(tmp_path / "r.sqlite")):
        assert time.monotonic() < limit
        time.sleep(0.02)
    process.terminate()
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "classified 1, refused 0\n")


def read_classified(path: Path) -> int:
    with contextlib.suppress(sqlite3.OperationalError):
        return len(read_rows(path))
    return 0


# ------------------------------------------------------------- waiting for files


class FakeClassifier:
    """Finds each picture complete that ends in a full stop."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def classify_bytes(self, data: bytes, name: str) -> dict[str, Any]:
        self.seen.append(name)
        if not data.endswith(b"."):
            raise PictureError(f"{name}: it is incomplete", name, "truncated")
        return {"image": name, "label": "mel"}


@pytest.fixture
def results(tmp_path: Path) -> Iterator[Results]:
    with Results(tmp_path / "r.sqlite", "5" * 64) as opened:
        yield opened


class Clock:
    """A monotonic clock that is moved by hand."""

    now = 0.0


@contextmanager
def watching(
    folder: Path, results: Results, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[watch.Watcher, FakeClassifier, Clock]]:
    clock, classifier = Clock(), FakeClassifier()
    folder.mkdir()
    monkeypatch.setattr("lesiontk.deploy.runner.watch.time.monotonic", lambda: clock.now)
    fake: Any = classifier
    yield watch.Watcher(folder, results, fake, 2.0, 60.0), classifier, clock


def test_a_file_that_grows_is_not_read(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()
    with watching(tmp_path / "in", results, monkeypatch) as (watcher, classifier, clock):
        path = tmp_path / "in" / "a.jpg"
        for second in range(10):
            path.write_bytes(b"x" * second)
            clock.now += 1.5
            assert watcher.scan(stop) == 1
        assert classifier.seen == []
        path.write_bytes(b"whole.")
        assert watcher.scan(stop) == 1
        clock.now += 2.0
        assert watcher.scan(stop) == 0
        assert classifier.seen == ["a.jpg"]


def test_a_folder_that_vanishes_is_named_once_and_watched_when_it_is_back(
    results: Results,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stop = threading.Event()
    folder = tmp_path / "in"
    with watching(folder, results, monkeypatch) as (watcher, classifier, clock):
        for _ in range(2):
            folder.rename(tmp_path / "unplugged")
            for _ in range(3):
                assert watcher.scan(stop) == 0
            expected = f"cannot read the folder {str(folder)!r}: No such file or directory\n"
            assert capsys.readouterr().err == expected
            (tmp_path / "unplugged").rename(folder)
            watcher.scan(stop)
        (folder / "a.jpg").write_bytes(b"whole.")
        watcher.scan(stop)
        clock.now += 2.0
        assert watcher.scan(stop) == 0
        assert classifier.seen == ["a.jpg"]
        assert capsys.readouterr().err == ""


def test_a_copy_that_stalls_is_waited_for(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()
    with watching(tmp_path / "in", results, monkeypatch) as (watcher, classifier, clock):
        path = tmp_path / "in" / "a.jpg"
        path.write_bytes(b"half")
        for _ in range(50):
            assert watcher.scan(stop) == 1
            clock.now += 1.0
        assert classifier.seen == ["a.jpg"]  # once, not at every scan
        path.write_bytes(b"half and half.")
        watcher.scan(stop)
        clock.now += 2.0
        assert watcher.scan(stop) == 0
        assert (watcher.classified, watcher.refused) == (1, 0)


def test_what_stays_incomplete_is_refused_with_the_reason(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()
    with watching(tmp_path / "in", results, monkeypatch) as (watcher, _, clock):
        (tmp_path / "in" / "a.jpg").write_bytes(b"half")
        for _ in range(3):
            watcher.scan(stop)
            clock.now += 31.0
        assert watcher.scan(stop) == 0
        assert (watcher.classified, watcher.refused) == (0, 1)
    (row,) = read_rows(tmp_path / "r.sqlite")
    assert (row["outcome"], row["reason"]) == ("refused", "a.jpg: it is incomplete")


# --------------------------------------------------------------------- storage


def test_a_full_disk_is_said_and_loses_nothing(
    bundle: Path, pictures: list[bytes], tmp_path: Path
) -> None:
    """A real file system without room for a result."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user cannot mount a file system")
    try:
        folder, results = tmp_path / "in", disk / "r.sqlite"
        folder.mkdir()
        with contextlib.closing(Results(results, "5" * 64)):
            (disk / "filler").write_bytes(b"")
        with contextlib.suppress(OSError), (disk / "filler").open("wb") as stream:
            while True:
                stream.write(b"0" * 4096)
                stream.flush()
        (folder / "a.jpg").write_bytes(pictures[0])
        words = ["watch", str(folder), str(results), *FAST, "--once"]
        done = call_runner(bundle, *words)
        assert done.returncode == 2
        assert "No result was lost" in done.stderr
        assert "free space" in done.stderr
        assert "Traceback" not in done.stderr
        (disk / "filler").unlink()
        assert call_runner(bundle, *words).returncode == 0
        assert [row["outcome"] for row in read_rows(results)] == ["classified"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_database_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.sqlite").write_text("my thesis, longer than the header of a database" * 30)
    with pytest.raises(StorageError, match="file is not a database"):
        Results(tmp_path / "r.sqlite", "5" * 64)
    with pytest.raises(StorageError, match="unable to open database file"):
        Results(tmp_path / "nowhere" / "r.sqlite", "5" * 64)


def test_two_watchers_store_a_result_once(tmp_path: Path) -> None:
    state = FileState(b"a.jpg", 5, 1)
    with Results(tmp_path / "r", "5" * 64) as one, Results(tmp_path / "r", "5" * 64) as other:
        for results in (one, other):
            results.record(state, "6" * 64, {"label": "mel", "positive": True})
        assert other.is_known(state)
        assert not other.is_known(FileState(b"a.jpg", 5, 2))
        assert other.note_touched(FileState(b"a.jpg", 5, 2), "6" * 64)
        assert other.is_known(FileState(b"a.jpg", 5, 2))
    assert len(read_rows(tmp_path / "r")) == 1


def test_a_folder_that_is_not_there_is_refused(bundle: Path, tmp_path: Path) -> None:
    done = call_runner(bundle, "watch", str(tmp_path / "nowhere"), str(tmp_path / "r.sqlite"))
    assert done.returncode == 2
    assert "is not a folder; expected one to watch" in done.stderr


def test_a_file_that_could_not_be_read_is_classified_when_it_can(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()
    picture = watch.import_picture()
    with watching(tmp_path / "in", results, monkeypatch) as (watcher, classifier, clock):
        (tmp_path / "in" / "a.jpg").write_bytes(b"whole.")

        def refuse(path: Path) -> bytes:
            raise PictureError(f"{path}: permission denied", str(path), "unreadable")

        with monkeypatch.context() as sealed:
            sealed.setattr(picture, "read_bytes", refuse)
            assert watcher.scan(stop) == 1
            clock.now += 61
            assert watcher.scan(stop) == 0
        assert (watcher.refused, classifier.seen) == (1, [])
        (tmp_path / "in" / "a.jpg").chmod(0o640)  # its content's time of change stays
        watcher.scan(stop)
        clock.now += 3
        assert watcher.scan(stop) == 0
        assert (watcher.classified, len(classifier.seen)) == (1, 1)


def test_a_database_in_the_folder_is_refused(bundle: Path, tmp_path: Path) -> None:
    ended = call_runner(bundle, "watch", str(tmp_path), str(tmp_path / "day" / ".." / "r.sqlite"))
    assert ended.returncode == 2
    assert f"expected a database outside {tmp_path}" in ended.stderr
    assert not (tmp_path / "r.sqlite").exists()


def test_a_flipped_byte_watches_nothing(bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    content = bytearray((copy / "tflite_int8.tflite").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "tflite_int8.tflite").write_bytes(content)
    done = call_runner(copy, "watch", str(tmp_path), str(tmp_path / "r.sqlite"))
    assert done.returncode == 2
    assert "tflite_int8.tflite was changed" in done.stderr
    assert not (tmp_path / "r.sqlite").exists()
