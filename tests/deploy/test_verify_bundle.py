"""A bundle is verified before it is trusted: its files, and whose signature they have."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from lesiontk.api.workspace import Workspace
from lesiontk.cli.main import cli
from lesiontk.deploy.change_plan import CHANGE_PLAN
from lesiontk.deploy.sbom import SBOM
from lesiontk.deploy.signing import SIGNATURE, sign_sums
from lesiontk.deploy.verify import verify_bundle
from lesiontk.errors import DataError, GateFailedError, UsageError
from tests.deploy.bundles import ENGINES, HIDDEN, RUN, make_bundle
from tests.deploy.keys import write_keys


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verified") / "bundle"
    return make_bundle(folder, "tflite_int8.tflite")


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "bundle"))


def run(folder: Path, key: Path | None, *words: str) -> subprocess.CompletedProcess[str]:
    trusted = {} if key is None else {"LESIONTK_PUBLIC_KEY": str(key)}
    return subprocess.run(
        [sys.executable, "-c", HIDDEN.format("") + RUN, str(folder / "run.py"), *words],
        capture_output=True, text=True, check=False, timeout=120, env={**os.environ, **trusted},
    )  # fmt: skip


def test_an_intact_bundle_is_verified(bundle: Path) -> None:
    found = verify_bundle(bundle)
    assert found.files == len((bundle / "SHA256SUMS").read_text().splitlines())
    assert found.signed_by is None
    assert {SBOM, CHANGE_PLAN, "MODEL_CARD.md"} <= {p.name for p in bundle.iterdir()}


def test_changed_missing_and_added_files_are_refused(bundle: Path) -> None:
    (bundle / "MODEL_CARD.md").write_text("better")
    (bundle / "golden.npz").unlink()
    (bundle / "notes.txt").write_text("mine")
    with pytest.raises(GateFailedError) as refused:
        verify_bundle(bundle)
    for part in ("MODEL_CARD.md was changed", "golden.npz is missing", "notes.txt is not listed"):
        assert part in str(refused.value)


def test_links_and_pipes_are_refused(bundle: Path, tmp_path: Path) -> None:
    shutil.move(bundle / "LICENSE", tmp_path / "LICENSE")
    (bundle / "LICENSE").symlink_to(tmp_path / "LICENSE")  # of the same bytes, until they change
    (bundle / "linked").symlink_to(tmp_path)
    os.mkfifo(bundle / "pipe")
    with pytest.raises(GateFailedError) as refused:
        verify_bundle(bundle)
    for name in ("LICENSE", "linked", "pipe"):
        assert f"{name} is a link, a pipe or a device" in str(refused.value)


def test_a_folder_that_is_no_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="SHA256SUMS cannot be read"):
        verify_bundle(tmp_path)


def test_the_command_verifies_a_signed_bundle_and_refuses_another(
    bundle: Path, tmp_path: Path
) -> None:
    private, public = write_keys(tmp_path)
    words = ["verify", str(bundle), "--public-key", str(public)]
    unsigned = CliRunner().invoke(cli, words)
    assert isinstance(unsigned.exception, DataError)
    assert "is not signed" in str(unsigned.exception)
    sign_sums(bundle, private)
    found = CliRunner().invoke(cli, [*words, "--json"])
    assert json.loads(found.stdout)["signed_by"] == "key.pub"
    other = write_keys(tmp_path, "other")[1]
    refused = CliRunner().invoke(cli, ["verify", str(bundle), "--public-key", str(other)])
    assert isinstance(refused.exception, DataError)
    assert CliRunner().invoke(cli, ["verify", str(bundle)]).exit_code == 0


def test_the_runner_requires_the_signature_of_the_key_it_has(bundle: Path, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path)
    picture = str(bundle / "golden" / "wide.png")
    assert run(bundle, None, "predict", picture).returncode == 0
    unsigned = run(bundle, public, "predict", picture)
    assert unsigned.returncode == 2
    assert "is not signed" in unsigned.stderr
    sign_sums(bundle, private)
    assert run(bundle, public, "predict", picture).returncode == 0
    foreign = run(bundle, write_keys(tmp_path, "other")[1], "predict", picture)
    assert foreign.returncode == 2
    assert "not by other.pub" in foreign.stderr
    assert not foreign.stdout
    unnamed = run(bundle, Path(), "predict", picture)
    assert unnamed.returncode == 2
    assert "cannot be read as a public key" in unnamed.stderr


def test_a_module_that_is_missing_is_named(bundle: Path) -> None:
    (bundle / "predict.py").unlink()
    ended = run(bundle, None, "predict", "picture.jpg")
    assert ended.returncode == 2
    assert "predict.py cannot be read" in ended.stderr
    assert "copy it again" in ended.stderr


def test_bundles_are_signed_and_packed_when_they_are_made(tmp_path: Path) -> None:
    private, public = write_keys(tmp_path)
    workspace = Workspace(tmp_path / "workspace")
    engine = ENGINES / "tflite_int8.tflite"
    first, second = (tmp_path / name for name in ("one", "two"))
    for out in (first, second):
        archive = out.with_name(f"{out.name}-packed") / "bundle.tar.gz"
        archive.parent.mkdir()
        made = workspace.bundle(
            engine, "linux-arm64", out, research_override=True, sign=private, archive=archive
        )
        assert made.verify(public).signed_by == "key.pub"
        with tarfile.open(archive) as packed:
            assert f"bundle/{SIGNATURE}" in packed.getnames()
    packed_twice = [
        (tmp_path / f"{name}-packed" / "bundle.tar.gz").read_bytes() for name in ("one", "two")
    ]
    assert packed_twice[0] == packed_twice[1]


def test_keys_and_archives_are_checked_before_any_work(tmp_path: Path) -> None:
    private, public = write_keys(tmp_path)
    workspace = Workspace(tmp_path / "workspace")
    engine, out = ENGINES / "tflite_int8.tflite", tmp_path / "out"
    with pytest.raises(UsageError, match="expected --out DIR"):
        workspace.bundle(engine, "linux-arm64", sign=private)
    with pytest.raises(UsageError, match="Ed25519 private key"):
        workspace.bundle(engine, "linux-arm64", out, sign=public)
    with pytest.raises(UsageError, match=r"ends in \.tar\.gz"):
        workspace.bundle(engine, "linux-arm64", out, archive=tmp_path / "b.zip")
    assert not out.exists()
