"""Workspaces share artefacts at a URL: a folder, or a bucket of a real server."""

from __future__ import annotations

import errno
import json
import logging
import pickle
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest

from lesiontk.errors import DataError, MissingRequirementError, UsageError
from lesiontk.records import Artefact
from lesiontk.stage import MEASURING, Context, StageInfo
from lesiontk.store import SharedStore, Store
from lesiontk.store.claim import CLAIM, ClaimPolicy
from lesiontk.store.manifest import write_manifest
from tests.fake_stages import JoinConfig, JoinStage, TextConfig, TextStage
from tests.s3_server import serving_s3

ROOT = Path(__file__).parents[2]
MANIFEST = "manifest.json"


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with serving_s3() as url:
        yield url


@pytest.fixture(params=["file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty shared store."""
    if request.param == "file":
        (tmp_path / "share").mkdir()
        return (tmp_path / "share").as_uri()
    return f"{request.getfixturevalue('bucket')}/{uuid.uuid4().hex}"


@pytest.fixture
def machine(tmp_path: Path, url: str) -> Callable[[str], Store]:
    """Return the store of a machine by name: a workspace of its own, and the shared store."""
    return lambda name: Store(tmp_path / name, threads=1, shared=SharedStore(url, POLICY))


@pytest.fixture(autouse=True)
def log_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lesiontk")


Machine = Callable[[str], Store]


class Clock:
    """Passes when somebody sleeps; then calls `during`, if any."""

    def __init__(self, during: Callable[[], object] = lambda: None) -> None:
        self.now, self.looks, self.during = 0.0, 0, during

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.looks += 1
        self.during()

    def policy(self, beat: float = 10.0) -> ClaimPolicy:
        return ClaimPolicy(beat=beat, sleep=self.sleep, clock=lambda: self.now)


POLICY = Clock().policy()


def objects_at(url: str) -> dict[str, bytes]:
    """Return path below the URL -> bytes of everything there."""
    files, root = fsspec.url_to_fs(url, use_listings_cache=False)
    return {path[len(root) + 1 :]: files.cat_file(path) for path in files.find(root)}


def write_at(url: str, path: str, content: bytes | None) -> None:
    """Replace an object; None removes it."""
    files, root = fsspec.url_to_fs(url, use_listings_cache=False)
    if content is None:
        files.rm_file(f"{root}/{path}")
    else:
        files.pipe_file(f"{root}/{path}", content)


def contents(artefact: Artefact) -> dict[str, bytes]:
    files = {path for path in artefact.path.rglob("*") if path.is_file()}
    return {path.relative_to(artefact.path).as_posix(): path.read_bytes() for path in files}


# ------------------------------------------------------------------------------ reuse


def test_what_one_machine_made_the_other_does_not_make(machine: Machine) -> None:
    there, stage = machine("one").build(TextStage(), TextConfig(), {}), TextStage()
    store = machine("two")
    here = store.build(stage, TextConfig(), {})
    assert stage.runs == 0
    assert contents(here) == contents(there)
    assert here.path == store.workspace / there.name
    assert store.damage(here.path) is None
    assert store.list_artefacts() == [here]


def test_another_recipe_reuses_it_and_has_its_own_name(machine: Machine, url: str) -> None:
    there = machine("one").build(TextStage(), TextConfig(), {}, recipe={"name": "first"})
    before, stage = objects_at(url), TextStage()
    here = machine("two").build(stage, TextConfig(), {}, recipe={"name": "second"})
    assert stage.runs == 0
    assert (here.recipe_name, there.recipe_name) == ("second", "first")
    assert here.content == there.content
    assert objects_at(url) == before


def test_an_older_workspace_is_shared_when_it_is_used(
    machine: Machine, url: str, tmp_path: Path
) -> None:
    Store(tmp_path / "one").build(TextStage(), TextConfig(), {})
    assert objects_at(url) == {}
    stage = TextStage()
    machine("one").build(stage, TextConfig(), {})
    machine("two").build(stage, TextConfig(), {})
    assert stage.runs == 0


def test_a_workspace_without_a_shared_store_sends_nothing(tmp_path: Path, url: str) -> None:
    Store(tmp_path / "one").build(TextStage(), TextConfig(), {})
    assert objects_at(url) == {}


def test_a_damaged_artefact_here_is_fetched_again(machine: Machine) -> None:
    there = machine("one").build(TextStage(), TextConfig(), {})
    (there.path / "text.txt").write_text("edited")
    stage = TextStage()
    again = machine("one").build(stage, TextConfig(), {})
    assert stage.runs == 0
    assert again.file("text.txt").read_text() == "a picture"


# ------------------------------------------------------------------------------ what is there


def test_the_manifest_is_written_last(
    machine: Machine, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    put, write = SharedStore._put, SharedStore._write

    def record_file(self: SharedStore, source: Path, target: str) -> None:
        put(self, source, target)
        written.append(source.name)

    def record(self: SharedStore, target: str, content: bytes, *, new: bool) -> bool:
        written.append(target.rpartition("/")[2])
        return write(self, target, content, new=new)

    monkeypatch.setattr(SharedStore, "_put", record_file)
    monkeypatch.setattr(SharedStore, "_write", record)
    made = machine("one").build(TextStage(), TextConfig(), {})
    assert written[0] == CLAIM
    assert sorted(written[1:-1]) == ["run.txt", "text.txt"]
    assert written[-1] == MANIFEST
    hashes = {entry.sha256 for entry in made.manifest.files.values()}
    assert set(objects_at(url)) == {f"{made.name}/{name}" for name in (*hashes, MANIFEST)}


class KilledError(BaseException):
    """The process ends here."""


def build_and_die(store: Store, function: str, call: int, *, after: bool) -> None:
    """Build a text; the process is killed before or after a call of a file system's function."""
    assert store.shared is not None
    files, calls = store.shared._opened[0], iter(range(9))
    original = getattr(files, function)

    def die(*arguments: Any, **options: Any) -> None:
        dying = next(calls) >= call
        if after or not dying:
            original(*arguments, **options)
        if dying:
            raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lesiontk.store.shared.TRANSFERS", 1)
        patch.setattr(files, function, die)
        with pytest.raises(KilledError):
            store.build(TextStage(), TextConfig(), {})


def check_nothing_is_read(machine: Machine) -> None:
    stage = TextStage()
    machine("two").build(stage, TextConfig(), {})
    assert stage.runs == 1
    machine("three").build(stage, TextConfig(), {})  # the second one completed it
    machine("one").build(stage, TextConfig(), {})
    assert stage.runs == 1


@pytest.mark.parametrize(
    ("function", "call", "after"),
    [
        ("pipe_file", 0, True),
        ("put_file", 0, False),
        ("put_file", 0, True),
        ("put_file", 1, True),
        ("pipe_file", 1, False),
    ],
)
def test_a_push_killed_at_any_file_leaves_nothing_that_is_read(
    function: str, call: int, after: bool, machine: Machine
) -> None:
    """Two files lie between the claim and the manifest, which are the small objects."""
    build_and_die(machine("one"), function, call, after=after)
    check_nothing_is_read(machine)


@pytest.mark.parametrize("url", ["file"], indirect=True)
@pytest.mark.parametrize(("call", "after"), [(0, False), (0, True), (1, False), (1, True)])
def test_a_push_killed_at_any_rename_leaves_nothing_that_is_read(
    call: int, after: bool, machine: Machine
) -> None:
    build_and_die(machine("one"), "mv", call, after=after)
    check_nothing_is_read(machine)


KILL = """
import os, sys
from pathlib import Path
from lesiontk.store import SharedStore, Store
from tests.fake_stages import TextConfig, TextStage
store = Store(Path(sys.argv[1]), shared=SharedStore(sys.argv[2]))
files = store.shared._opened[0]
def half(source, target, **options):
    Path(target).write_bytes(Path(source).read_bytes()[:2])
    os._exit(9)
files.put_file = half
store.build(TextStage(), TextConfig(), {})
"""


def test_a_process_killed_within_a_file_leaves_nothing_that_is_read(tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    url = (tmp_path / "share").as_uri()
    command = [sys.executable, "-c", KILL, str(tmp_path / "one"), url]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 9
    left = {path.rpartition("/")[2]: content for path, content in objects_at(url).items()}
    assert len(left.pop(CLAIM)) > 2
    assert [len(content) for content in left.values()] == [2]
    stage, clock = TextStage(), Clock()
    again = Store(tmp_path / "one", shared=SharedStore(url, clock.policy()))
    again.build(stage, TextConfig(), {})
    assert clock.looks == 0, "the claim is that of this workspace"
    assert stage.runs == 0
    Store(tmp_path / "two", shared=SharedStore(url)).build(stage, TextConfig(), {})
    assert stage.runs == 0


# ------------------------------------------------------------------------------ damage


def edit_manifest(artefact: Artefact, **changes: Any) -> bytes:
    document = json.loads((artefact.path / MANIFEST).read_text())
    return json.dumps({**document, **changes}).encode()


def seal_as(artefact: Artefact, folder: Path, **changes: Any) -> bytes:
    folder.mkdir()
    write_manifest(folder, {**json.loads((artefact.path / MANIFEST).read_text()), **changes})
    return (folder / MANIFEST).read_bytes()


DAMAGE: dict[str, tuple[str, Callable[[Artefact, Path], bytes | None], str]] = {
    "file changed": ("text.txt", lambda made, _: b"a PICTURE", "text.txt was changed"),
    "file torn": ("text.txt", lambda made, _: b"a pic", "text.txt was changed"),
    "file missing": ("text.txt", lambda made, _: None, "text.txt is missing"),
    "manifest torn": (MANIFEST, lambda made, _: b'{"format', "its manifest cannot be read"),
    "manifest empty": (MANIFEST, lambda made, _: b"", "its manifest cannot be read"),
    "manifest edited": (
        MANIFEST,
        lambda made, _: edit_manifest(made, facts={"letters": 1}),
        "its manifest was edited",
    ),
    "older format": (
        MANIFEST,
        lambda made, folder: seal_as(made, folder, format=3),
        "its manifest has format 3; this lesiontk reads format 4",
    ),
    "of another": (
        MANIFEST,
        lambda made, folder: seal_as(made, folder, kind="note"),
        "its manifest is that of note-",
    ),
    "path that leads away": (
        MANIFEST,
        lambda made, folder: seal_as(
            made, folder, files={"../x": made.manifest.files["text.txt"].model_dump()}
        ),
        "is not a path inside the artefact",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_and_made_anew(
    kind: str, machine: Machine, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = machine("one").build(TextStage(), TextConfig(), {})
    file, change, reason = DAMAGE[kind]
    stored = MANIFEST if file == MANIFEST else made.manifest.files[file].sha256
    write_at(url, f"{made.name}/{stored}", change(made, tmp_path / "sealed"))
    stage, store = TextStage(), machine("two")
    caplog.clear()
    with pytest.raises(DataError, match=reason.replace(".", r"\.")):
        store.resolve(made.name)
    assert store.list_names() == []
    again = store.build(stage, TextConfig(), {})
    assert stage.runs == 1
    assert reason in caplog.text
    assert store.damage(again.path) is None
    fetched = machine("three").build(stage, TextConfig(), {})
    assert stage.runs == 1, "the damaged one is replaced"
    assert fetched.content == again.content
    assert not list(tmp_path.glob("two/.fetch-*"))


# ------------------------------------------------------------------------------ at once


def make_together(stores: list[Store], texts: list[str]) -> list[Artefact]:
    """Build one key in several workspaces; all have run their stage before the first is shared."""
    together, made = threading.Barrier(len(stores)), dict[int, Artefact]()

    def build(number: int) -> None:
        def during(context: Context) -> None:
            (context.directory / "chance.txt").write_text(texts[number])
            together.wait(60)

        made[number] = stores[number].build(TextStage(during), TextConfig(), {})

    threads = [threading.Thread(target=build, args=(n,)) for n in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [made[number] for number in range(len(stores))]


@pytest.fixture
def unclaimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every machine makes what is missing, as if all had taken over the claim of a killed one."""
    monkeypatch.setattr(SharedStore, "claim", lambda *_: nullcontext(True))


@pytest.mark.usefixtures("unclaimed")
@pytest.mark.parametrize("texts", [["same", "same", "same"], ["one", "two", "three"]])
def test_machines_that_make_one_key_at_once_agree(
    texts: list[str], machine: Machine, url: str
) -> None:
    stores = [machine(name) for name in ("one", "two", "three")]
    made = make_together(stores, texts)
    assert len({artefact.content for artefact in made}) == 1
    assert all(store.damage(a.path) is None for store, a in zip(stores, made, strict=True))
    stage = TextStage()
    late = machine("late").build(stage, TextConfig(), {})
    assert stage.runs == 0
    assert late.content == made[0].content
    kept = [list(store.workspace.glob(".text-*.old-1/chance.txt")) for store in stores]
    lost = [path.read_text() for paths in kept for path in paths]
    assert sorted([*lost, late.file("chance.txt").read_text()]) == (
        sorted(texts) if len(set(texts)) > 1 else ["same"]
    )


class MeasureStage(TextStage):
    """Measures the machine."""

    info: ClassVar[StageInfo] = replace(TextStage.info, needs=MEASURING)


def test_each_machine_measures_itself(machine: Machine, url: str) -> None:
    made = {}
    for name in ("one", "two"):
        stage = MeasureStage()
        stage.facts, stage.measured = {"machine": name}, {"ms": len(made) + 1}
        store = machine(name)
        made[name] = store.build(stage, TextConfig(), {})
        assert made[name].facts["machine"] == name
        assert stage.runs == 1
        assert store.build(stage, TextConfig(), {}) == made[name], "it is not replaced"
        assert stage.runs == 1
    assert machine("three").resolve(made["one"].name) == replace(
        made["one"], path=machine("three").workspace / made["one"].name
    )


@pytest.mark.usefixtures("unclaimed")
def test_the_first_stays_although_the_other_had_looked_before(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second machine sees no manifest, and the first writes its own before the second does."""

    def make(name: str) -> Artefact:
        stage = TextStage(lambda c: (c.directory / "chance.txt").write_text(name) and None)
        return machine(name).build(stage, TextConfig(), {})

    push, first = SharedStore._push, []

    def late(self: SharedStore, *arguments: Any, **options: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(SharedStore, "_push", push)
            first.append(make("first"))
        push(self, *arguments, **options)

    monkeypatch.setattr(SharedStore, "_push", late)
    second = make("second")
    assert second.content == first[0].content
    assert second.file("chance.txt").read_text() == "first"


# ------------------------------------------------------------------------------ claims


def wait_store(tmp_path: Path, url: str, clock: Clock) -> Store:
    return Store(tmp_path / "waiting", threads=1, shared=SharedStore(url, clock.policy()))


def claim_at(url: str, tmp_path: Path) -> str:
    """Return the path of the claim on the text, and make the folder that it lies in."""
    name = Store(tmp_path / "nowhere").build(TextStage(), TextConfig(), {}).name
    files, root = fsspec.url_to_fs(url, use_listings_cache=False)
    if url.startswith("file"):
        files.makedirs(f"{root}/{name}")
    return f"{name}/{CLAIM}"


def test_a_machine_waits_for_the_one_that_makes_it(
    machine: Machine, tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    running, go_on = threading.Event(), threading.Event()
    stage = TextStage(lambda context: (running.set() and None) or (go_on.wait(60) and None))
    first = threading.Thread(target=machine("one").build, args=(stage, TextConfig(), {}))
    first.start()
    running.wait(60)
    clock = Clock(lambda: (go_on.set(), first.join()))
    made = wait_store(tmp_path, url, clock).build(stage, TextConfig(), {})
    assert stage.runs == 1
    assert clock.looks == 1
    assert f"{made.name}: another machine is making it; waiting" in caplog.text
    assert f"{made.name}/{CLAIM}" not in objects_at(url)


@pytest.mark.parametrize("claim", [b"another workspace 7", b""])
def test_the_claim_of_a_killed_process_expires(url: str, tmp_path: Path, claim: bytes) -> None:
    write_at(url, claim_at(url, tmp_path), claim)
    stage, clock = TextStage(), Clock()
    wait_store(tmp_path, url, clock).build(stage, TextConfig(), {})
    assert stage.runs == 1
    assert clock.now == 60


def test_a_claim_that_changes_does_not_expire(url: str, tmp_path: Path) -> None:
    path = claim_at(url, tmp_path)
    write_at(url, path, b"another workspace 0")

    def beat() -> None:
        gone = clock.looks == 25  # it has failed, and nothing was made
        write_at(url, path, None if gone else b"another workspace %d" % clock.looks)

    stage, clock = TextStage(), Clock(beat)
    wait_store(tmp_path, url, clock).build(stage, TextConfig(), {})
    assert (stage.runs, clock.looks) == (1, 25)


def test_a_claim_is_rewritten_during_the_work(url: str, tmp_path: Path) -> None:
    def wait_for_beats(context: Context) -> None:
        seen = set[bytes]()
        for _ in range(10_000):
            seen |= {found for path, found in objects_at(url).items() if path.endswith(CLAIM)}
            if len(seen) > 2:
                return
        raise AssertionError("the claim did not change")

    shared = SharedStore(url, Clock().policy(beat=0.001))
    Store(tmp_path / "one", shared=shared).build(TextStage(wait_for_beats), TextConfig(), {})
    assert not [path for path in objects_at(url) if path.endswith(CLAIM)]


def test_a_failure_ends_the_claim(machine: Machine, url: str) -> None:
    def fail(context: Context) -> None:
        raise DataError("broken")

    with pytest.raises(DataError, match="broken"):
        machine("one").build(TextStage(fail), TextConfig(), {})
    assert objects_at(url) == {}
    stage = TextStage()
    machine("two").build(stage, TextConfig(), {})
    assert stage.runs == 1


# ------------------------------------------------------------------------------ by name


def join(store: Store) -> Artefact:
    text = store.build(TextStage(), TextConfig(text="one"), {})
    pair = store.build(JoinStage(), JoinConfig(), {"first": text})
    return store.build(JoinStage(), JoinConfig(), {"first": text, "rest": pair})


def test_another_machine_continues_by_name(machine: Machine) -> None:
    whole = join(machine("one"))
    store = machine("two")
    found = store.resolve(whole.name)
    assert store.list_artefacts() == [found]
    assert store.resolve("latest") == found
    pair = store.parent(found, "rest")
    text = store.parent(pair, "first")
    assert {made.name for made in store.list_artefacts()} == {found.name, pair.name, text.name}
    more = store.build(JoinStage(), JoinConfig(between="-"), {"first": text, "rest": found})
    assert more.file("text.txt").read_text() == "one-one one"


def test_the_lineage_is_known_without_the_files(machine: Machine) -> None:
    whole = join(machine("one"))
    store = machine("two")
    found = store.lineage(store.resolve(whole.name))
    assert not found.parents["rest"].parents["first"].gone
    assert store.list_names() == [whole.name]


def test_what_an_artefact_was_made_from_is_shared_before_it(
    machine: Machine, tmp_path: Path
) -> None:
    local = Store(tmp_path / "one")
    whole = join(local)
    machine("one").share(whole)
    store = machine("two")
    assert store.parent(store.parent(store.resolve(whole.name), "rest"), "first").kind == "text"


def test_a_changed_ancestor_is_not_shared(
    machine: Machine, tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = join(Store(tmp_path / "one"))
    text = Store(tmp_path / "one").parent(whole, "first")
    (text.path / "text.txt").write_text("two")
    machine("one").share(whole)
    assert f"{text.name}: not shared: text.txt of {text.name} was changed" in caplog.text
    assert f"{text.name}/{MANIFEST}" not in objects_at(url)
    assert f"{whole.name}/{MANIFEST}" in objects_at(url)


def test_a_parent_with_other_content_is_not_taken(machine: Machine, tmp_path: Path) -> None:
    def text_of(store: Store, chance: str) -> Artefact:
        stage = TextStage(lambda c: (c.directory / "chance.txt").write_text(chance) and None)
        return store.build(stage, TextConfig(), {})

    text_of(machine("one"), "theirs")
    local = Store(tmp_path / "two")
    pair = local.build(JoinStage(), JoinConfig(), {"first": text_of(local, "mine")})
    machine("two").share(pair)
    store = machine("three")
    with pytest.raises(DataError, match="is no longer beside it"):
        store.parent(store.resolve(pair.name), "first")


def test_a_name_that_is_nowhere_is_an_error(machine: Machine) -> None:
    with pytest.raises(UsageError, match=r"no artefact in .* matches 'text-000000000000'"):
        machine("one").resolve("text-000000000000")


def test_what_is_there_is_listed(
    machine: Machine, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert machine("one").list_shared() == []
    whole = join(machine("one"))
    found = machine("two").list_shared()
    assert len(found) == 3
    assert found[0].manifest == whole.manifest
    assert [made.kind for made in machine("two").list_shared("text")] == ["text"]
    write_at(url, f"{whole.name}/{MANIFEST}", b"{")
    assert len(machine("two").list_shared()) == 2
    assert f"{whole.name}: left out, because its manifest cannot be read" in caplog.text


def test_another_process_opens_it_for_itself(url: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "one", shared=SharedStore(url))
    made = store.build(TextStage(), TextConfig(), {})
    copied = pickle.loads(pickle.dumps(store.shared))
    assert copied.url == url
    assert copied.read(made.name) == made.manifest


# ------------------------------------------------------------------------------ failures


def test_a_failed_push_loses_nothing(
    machine: Machine, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, stage = machine("one"), TextStage()
    assert store.shared is not None

    def refuse(*arguments: Any, **options: Any) -> None:
        raise PermissionError("Access Denied")

    with monkeypatch.context() as patch:
        patch.setattr(store.shared._opened[0], "put_file", refuse)
        with pytest.raises(MissingRequirementError) as caught:
            store.build(stage, TextConfig(), {})
    (made,) = store.list_artefacts()
    remedy = {
        "file": "that this machine may write there, and that space is left",
        "s3": "the credentials in the environment, such as AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY or AWS_PROFILE",
    }[url.partition(":")[0]]
    assert str(caught.value) == (
        f"{made.name} is in {store.workspace} and could not be shared: the shared store {url} "
        f"cannot be written: permission denied (Access Denied). Check {remedy}. The same command "
        "shares it when it is run again."
    )
    store.build(stage, TextConfig(), {})
    machine("two").build(stage, TextConfig(), {})
    assert stage.runs == 1


def test_a_full_folder_keeps_no_half_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "share").mkdir()
    url = (tmp_path / "share").as_uri()
    store = Store(tmp_path / "one", shared=SharedStore(url, POLICY))
    assert store.shared is not None

    def fill(source: str, target: str) -> None:
        Path(target).write_bytes(Path(source).read_bytes()[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.shared._opened[0], "put_file", fill)
    with pytest.raises(MissingRequirementError, match="that space is left"):
        store.build(TextStage(), TextConfig(), {})
    assert objects_at(url) == {}


def test_a_store_that_cannot_be_written_costs_no_work(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, stage = machine("one"), TextStage()
    assert store.shared is not None

    def refuse(*arguments: Any, **options: Any) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(store.shared._opened[0], "pipe_file", refuse)
    with pytest.raises(MissingRequirementError, match="cannot be written: permission denied"):
        store.build(stage, TextConfig(), {})
    assert stage.runs == 0


def test_a_server_that_is_gone_costs_no_work(tmp_path: Path) -> None:
    with serving_s3() as bucket:
        store, stage = Store(tmp_path / "one", shared=SharedStore(bucket)), TextStage()
        assert store.shared is not None
        store.shared.check()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        with pytest.raises(MissingRequirementError, match="cannot be read: Could not connect"):
            store.build(stage, TextConfig(), {})
    assert stage.runs == 0


def test_a_server_that_stops_during_the_work_leaves_the_artefact(tmp_path: Path) -> None:
    server = serving_s3()
    stage = TextStage(lambda context: server.__exit__(None, None, None) and None)
    store = Store(tmp_path / "one", shared=SharedStore(server.__enter__()))
    with pytest.raises(MissingRequirementError, match=r"is in .* and could not be shared"):
        store.build(stage, TextConfig(), {})
    (made,) = store.list_artefacts()
    assert store.damage(made.path) is None


@pytest.mark.parametrize("place", ["missing", "missing/prefix"])
def test_a_bucket_that_does_not_exist_is_an_error_before_work(
    place: str, bucket: str, tmp_path: Path
) -> None:
    stage, store = TextStage(), Store(tmp_path / "one", shared=SharedStore(f"s3://{place}"))
    with pytest.raises(MissingRequirementError, match=f"bucket of the shared store s3://{place} "):
        store.build(stage, TextConfig(), {})
    assert stage.runs == 0


def test_a_bucket_itself_can_be_the_store(bucket: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "one", shared=SharedStore(f"{bucket}/"))
    made = store.build(TextStage(), TextConfig(text="at the top"), {})
    assert MANIFEST in objects_at(f"{bucket}/{made.name}")


def test_a_folder_that_does_not_exist_is_an_error_before_work(tmp_path: Path) -> None:
    """A share that is not mounted must not become a folder of this machine."""
    url, stage = (tmp_path / "share").as_uri(), TextStage()
    with pytest.raises(MissingRequirementError, match=r"folder of the shared store .* not exist"):
        Store(tmp_path / "one", shared=SharedStore(url)).build(stage, TextConfig(), {})
    assert stage.runs == 0
    assert not (tmp_path / "share").exists()


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "share").write_text("")
    with pytest.raises(UsageError, match="is a file; expected a folder"):
        SharedStore((tmp_path / "share").as_uri()).check()


def test_a_workspace_is_no_store(tmp_path: Path) -> None:
    made = Store(tmp_path / "one").build(TextStage(), TextConfig(), {})
    other = Store(tmp_path / "two", shared=SharedStore((tmp_path / "one").as_uri()))
    before = contents(made)
    with pytest.raises(UsageError, match="is a workspace; expected a folder of its own"):
        other.build(TextStage(), TextConfig(), {})
    assert contents(made) == before


# ------------------------------------------------------------------------------ URLs


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("/mnt/share", "expected a URL such as s3://BUCKET/PREFIX or file:///FOLDER"),
        ("", "expected a URL"),
        ("s3:bucket", "expected a URL"),
        ("s3://", "has no bucket"),
        ("s3:///prefix", "has no bucket"),
        ("file://share/x", "expected file:/// and an absolute path"),
        ("file:///", "expected file:/// and an absolute path"),
        ("simplecache::s3://bucket", "expected a URL"),
        ("s4://bucket", r"unknown scheme 's4'; expected .* Did you mean 's3'\?"),
        ("s3://[bucket", "is not a URL"),
    ],
)
def test_another_url_is_refused(url: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        SharedStore(url)


@pytest.mark.parametrize(
    "url",
    [
        "s3://name:hush@bucket/x",
        "s3://name:hush/hush+x@bucket/x",
        "ssh://name:hush@host/x",
        "s3://bucket/x?X-Amz-Signature=hush",
    ],
)
def test_a_url_with_credentials_is_refused_without_showing_them(url: str) -> None:
    with pytest.raises(UsageError, match="Credentials belong to the environment") as caught:
        SharedStore(url)
    assert "hush" not in str(caught.value)


def test_credentials_are_not_written(
    bucket: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path / "one", shared=SharedStore(f"{bucket}/secrets"))
    made = store.build(TextStage(), TextConfig(), {})
    told = caplog.text.encode() + b"".join(contents(made).values())
    assert b"made-up" not in told + b"".join(objects_at(f"{bucket}/secrets").values())


@pytest.mark.parametrize(
    ("missing", "url", "remedy"),
    [
        ("fsspec", "file:///share", r"pip install 'lesiontk\[s3\]'"),
        ("s3fs", "s3://bucket", r"requires s3fs.*pip install 'lesiontk\[s3\]'"),
        ("gcsfs", "gs://bucket", "requires gcsfs.*pip install gcsfs"),
    ],
)
def test_a_missing_package_is_named(
    missing: str, url: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = "lesiontk.store.shared_url.importlib.util.find_spec"
    monkeypatch.setattr(find, lambda name: None if name == missing else object())
    with pytest.raises(MissingRequirementError, match=remedy):
        SharedStore(url)


LOADED = """
import sys
from pathlib import Path
from lesiontk.store import Store
from tests.fake_stages import TextConfig, TextStage
Store(Path(sys.argv[1])).build(TextStage(), TextConfig(), {})
print(sorted({"fsspec", "s3fs", "aiohttp"} & set(sys.modules)))
"""


def test_nothing_is_loaded_without_a_url(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOADED, str(tmp_path / "one")]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
