"""The shared store on the command line and in Python: --shared, LESIONTK_SHARED and ls --remote."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import lesiontk
from lesiontk.cli.main import cli
from lesiontk.errors import MissingRequirementError, UsageError
from lesiontk.records import Artefact
from lesiontk.store import SharedStore, Store
from tests.fake_stages import TextConfig, TextStage


@pytest.fixture
def url(tmp_path: Path) -> str:
    (tmp_path / "share").mkdir()
    return (tmp_path / "share").as_uri()


@pytest.fixture
def shared(url: str, tmp_path: Path) -> Artefact:
    """An artefact that another machine shared."""
    store = Store(tmp_path / "other machine", shared=SharedStore(url))
    return store.build(TextStage(), TextConfig(), {}, recipe={"name": "probe"})


def test_ls_lists_what_is_there(url: str, shared: Artefact, tmp_path: Path) -> None:
    words = ["ls", "--json", "--workspace", str(tmp_path / "mine")]
    result = CliRunner().invoke(cli, [*words, "--remote", "--shared", url], catch_exceptions=False)
    (found,) = json.loads(result.stdout)["artefacts"]
    assert (found["name"], found["recipe"]) == (shared.name, "probe")
    assert found["path"] == f"{url}/{shared.name}"
    assert found["bytes"] == sum(entry.bytes for entry in shared.manifest.files.values())
    environment = {"LESIONTK_SHARED": url}
    again = CliRunner().invoke(cli, [*words, "--remote"], env=environment, catch_exceptions=False)
    assert again.stdout == result.stdout
    own = CliRunner().invoke(cli, words, env=environment, catch_exceptions=False)
    assert json.loads(own.stdout)["artefacts"] == []


def test_a_command_finds_an_artefact_by_name(url: str, shared: Artefact, tmp_path: Path) -> None:
    words = ["lineage", shared.name, "--workspace", str(tmp_path / "mine"), "--shared", url]
    result = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert result.stdout.startswith(shared.name)


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (["--shared", "s4://bucket"], 2, "unknown scheme 's4'"),
        (["--shared", "s3://name:hush@bucket"], 2, "Credentials belong to the environment"),
        (["--shared", "file:///does/not/exist"], 3, "file:///does/not/exist does not exist"),
    ],
)
def test_a_wrong_url_is_an_error_before_any_work(
    words: list[str], code: int, reason: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "lesiontk", "run", "demo", "--workspace", "mine", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert reason in done.stderr
    assert "hush" not in done.stderr
    assert "stage" not in done.stderr
    assert not list(tmp_path.glob("mine/*"))


def test_remote_without_a_store_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no shared store is given; specify its URL with --shared"):
        lesiontk.Workspace(tmp_path / "mine").ls(remote=True)


def test_python_has_the_same(
    url: str, shared: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = lesiontk.Workspace(tmp_path / "mine", shared=url).ls(remote=True)
    assert list(table["name"]) == [shared.name]
    monkeypatch.setenv("LESIONTK_SHARED", url)
    assert len(lesiontk.Workspace(tmp_path / "mine").ls("text", remote=True)) == 1
    monkeypatch.setenv("LESIONTK_SHARED", f"{url}/missing")
    with pytest.raises(MissingRequirementError, match="does not exist"):
        lesiontk.Workspace(tmp_path / "mine").train("demo")
