"""Signatures, archives, bills of materials and change plans of bundles."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from lesiontk.deploy.archive import write_archive
from lesiontk.deploy.change_plan import render_change_plan
from lesiontk.deploy.sbom import render_sbom
from lesiontk.deploy.signing import SIGNATURE, SUMS, sign_sums, verify_sums
from lesiontk.errors import DataError, UsageError
from lesiontk.evaluate.operating_point import OperatingPoint
from lesiontk.evaluate.verdict import Comparand, GateVerdict, Outcome
from lesiontk.records import EngineSpec, Preprocessing
from tests.deploy.keys import write_keys

SPEC = EngineSpec(
    labels=("benign", "malignant"),
    preprocessing=Preprocessing(32),
    task="malignancy",
    backend="tflite",
    precision="int8",
    recipe="tiny",
    split_hash="a" * 64,
    licence="CC BY-NC 4.0",
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    (folder / "golden").mkdir(parents=True)
    for name in ("run.py", "engine.tflite", "golden/wide.png", SUMS):
        (folder / name).write_bytes(random.Random(name).randbytes(2000))
    return folder


def test_a_signed_bundle_is_verified(bundle: Path, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path)
    sign_sums(bundle, private)
    verify_sums(bundle, public)


def test_openssl_agrees(bundle: Path, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    private, public = write_keys(tmp_path)
    sign_sums(bundle, private)
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(public), "-rawin", "-in",
               str(bundle / SUMS), "-sigfile", str(bundle / SIGNATURE)]  # fmt: skip
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_every_changed_byte_is_refused(bundle: Path, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path)
    sign_sums(bundle, private)
    for name in (SUMS, SIGNATURE):
        content = (bundle / name).read_bytes()
        for place in random.Random(1).sample(range(len(content)), 40):
            changed = bytearray(content)
            changed[place] ^= 1
            (bundle / name).write_bytes(changed)
            with pytest.raises(DataError, match="do not use the bundle"):
                verify_sums(bundle, public)
        (bundle / name).write_bytes(content)
    verify_sums(bundle, public)


def test_unsigned_and_foreign_bundles_are_refused(bundle: Path, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path)
    with pytest.raises(DataError, match=r"is not signed; expected SHA256SUMS\.sig"):
        verify_sums(bundle, public)
    sign_sums(bundle, write_keys(tmp_path, "other")[0])
    with pytest.raises(DataError, match=r"not by key\.pub"):
        verify_sums(bundle, public)
    sign_sums(bundle, private)
    verify_sums(bundle, public)


def test_other_files_are_no_keys(bundle: Path, tmp_path: Path) -> None:
    _, public = write_keys(tmp_path)
    other = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (tmp_path / "rsa.pem").write_bytes(other)
    (tmp_path / "text.pem").write_text("no key")
    (tmp_path / "large.pem").write_bytes(b"x" * 20_000)
    for path in (tmp_path / "rsa.pem", tmp_path / "text.pem", tmp_path / "large.pem", public):
        with pytest.raises(UsageError, match="expected a"):
            sign_sums(bundle, path)
    assert not (bundle / SIGNATURE).exists()


def test_keys_of_unknown_kinds_are_refused(bundle: Path, tmp_path: Path) -> None:
    sign_sums(bundle, write_keys(tmp_path)[0])
    (tmp_path / "curve.pub").write_text(
        "-----BEGIN PUBLIC KEY-----\n"  # brainpoolP160r1
        "MEIwFAYHKoZIzj0CAQYJKyQDAwIIAQEBAyoABM/OEx9sSOL12zk+fQN/RTvkdUa3\n"
        "3Fnf76YFgbQ4R7GHGQDWoY/aX+g=\n"
        "-----END PUBLIC KEY-----\n"
    )
    with pytest.raises(UsageError, match="cannot be read as a public key"):
        verify_sums(bundle, tmp_path / "curve.pub")


def test_an_archive_has_the_same_bytes_twice(bundle: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "one" / "b.tar.gz", tmp_path / "two" / "b.tar.gz"
    for out in (first, second):
        out.parent.mkdir()
        write_archive(bundle, out)
        for path in bundle.rglob("*"):
            os.utime(path, (1, 1))
        (bundle / "engine.tflite").chmod(0o600)
    assert first.read_bytes() == second.read_bytes()
    with tarfile.open(first) as archive:
        archive.extractall(tmp_path / "out", filter="data")
    found = tmp_path / "out" / "b"
    names = {p.relative_to(bundle) for p in bundle.rglob("*") if p.is_file()}
    assert names == {p.relative_to(found) for p in found.rglob("*") if p.is_file()}
    assert all((bundle / name).read_bytes() == (found / name).read_bytes() for name in names)
    assert os.access(found / "run.py", os.X_OK)


def test_an_archive_replaces_nothing_and_has_its_suffix(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.tar\.gz"):
        write_archive(bundle, tmp_path / "b.zip")
    (tmp_path / "b.tar.gz").touch()
    with pytest.raises(UsageError, match="expected a new file"):
        write_archive(bundle, tmp_path / "b.tar.gz")


def sbom(
    bundle: Path, requirements: str = "numpy==2.1.0 \\\n    --hash=sha256:00\nPillow>=9\n"
) -> str:
    return render_sbom(
        bundle, {"engine.tflite": (SPEC, None)}, requirements=requirements, version="0.1"
    )


def test_a_bill_of_materials_fits_its_schema(bundle: Path) -> None:
    schema = pytest.importorskip("cyclonedx.schema")
    validation = pytest.importorskip("cyclonedx.validation.json")
    validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    assert validator.validate_str(sbom(bundle)) is None
    broken = sbom(bundle).replace('"machine-learning-model"', '"model"')
    assert validator.validate_str(broken) is not None


def test_a_bill_of_materials_names_engine_runner_and_requirements(bundle: Path) -> None:
    document = json.loads(sbom(bundle))
    parts = {part["bom-ref"]: part for part in document["components"]}
    assert set(parts) == {"model:engine.tflite", "file:run.py", "pip:numpy@2.1.0", "pip:pillow"}
    assert parts["pip:numpy@2.1.0"]["purl"] == "pkg:pypi/numpy@2.1.0"
    assert "version" not in parts["pip:pillow"]
    assert document["dependencies"][0]["dependsOn"] == list(parts)
    assert sbom(bundle) == sbom(bundle)
    (bundle / "run.py").write_text("changed")
    assert json.loads(sbom(bundle))["serialNumber"] != document["serialNumber"]


def test_a_change_plan_has_the_recipes_gates() -> None:
    gate = "macro_auc >= parent - 0.01 @ 0.95"
    verdict = GateVerdict("tflite:int8", gate, "macro_auc", Comparand.LOSS, Outcome.PASSED, 0.01)
    point = OperatingPoint("youden", 0.25, ("malignant",))
    text = render_change_plan(SPEC, point, [verdict])
    assert f"- `{gate}`" in text
    assert "0.2500 on malignant" in text
    assert "no change is covered" in render_change_plan(SPEC, None, [])
