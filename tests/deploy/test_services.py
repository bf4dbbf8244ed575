"""What a bundle carries to be installed and run as a service: pins, units, a Dockerfile."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

from lesiontk.deploy import BUNDLE_TARGETS, find_bundle_target
from lesiontk.deploy.bundle import read_requirements
from lesiontk.deploy.jetson import IMAGES
from lesiontk.deploy.service_files import UNITS, write_service_files
from lesiontk.deploy.target import LITERT, ONNX, TENSORRT, Runtime

PYTHONS = {LITERT: 9, ONNX: 8, TENSORRT: 8}
"""The first Python 3 of each runtime."""
LOCK = Path(__file__).parents[2] / "requirements.lock"


def read_pins(text: str) -> list[tuple[Requirement, int]]:
    """Return each requirement with the number of its hashes."""
    blocks = re.findall(r"^(\S.*?) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.M)
    assert sum(1 + block[1].count("\n") for block in blocks) == len(text.splitlines())
    return [(Requirement(line), hashes.count("sha256")) for line, hashes in blocks]


@pytest.mark.parametrize("runtime", PYTHONS, ids=lambda runtime: runtime.name)
@pytest.mark.parametrize("filters", [False, True])
def test_everything_is_pinned_once_for_each_python(runtime: Runtime, filters: bool) -> None:
    pins = read_pins(read_requirements(runtime, filters=filters))
    for minor in range(PYTHONS[runtime], 14):
        for machine in ("x86_64", "aarch64"):
            environment = {
                **default_environment(), "python_version": f"3.{minor}", "sys_platform": "linux",
                "python_full_version": f"3.{minor}.0", "platform_machine": machine,
            }  # fmt: skip
            chosen = [
                pin
                for pin, hashes in pins
                if hashes and (pin.marker is None or pin.marker.evaluate(environment))
            ]
            names = [pin.name for pin in chosen]
            assert len(names) == len(set(names)), f"3.{minor}"
            assert {"numpy", "pillow", "opencv-python-headless"} - {*names} == (
                set() if filters else {"opencv-python-headless"}
            )
            assert all(len(pin.specifier) == 1 and "==" in str(pin.specifier) for pin in chosen)


def test_the_toolkits_own_versions_of_pillow_and_runtimes_are_among_the_pins() -> None:
    """What was tested here is what a board with a current Python installs."""
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", LOCK.read_text(), re.M))
    for runtime, package in ((LITERT, "ai-edge-litert"), (ONNX, "onnxruntime")):
        pins = {(pin.name, str(pin.specifier)) for pin, _ in read_pins(_text(runtime))}
        assert {(name, f"=={locked[name]}") for name in (package, "pillow")} <= pins


def _text(runtime: Runtime) -> str:
    return read_requirements(runtime, filters=False)


def test_each_list_has_its_source() -> None:
    folder = Path(str(resources.files("lesiontk.deploy.requirements")))
    assert {p.stem for p in folder.glob("*.in")} == {p.stem for p in folder.glob("*.txt")}


@pytest.fixture(params=[False, True], ids=["cpu", "gpu"])
def services(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    gpu: bool = request.param
    write_service_files(tmp_path, IMAGES["jetpack6"] if gpu else "python:3.11-slim", gpu=gpu)
    return tmp_path


def call(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.fixture
def installed(services: Path) -> Path:
    """The units as on a machine where their programs exist."""
    for path in (services / "systemd").iterdir():
        path.write_text(path.read_text().replace("/opt/lesiontk/.venv/bin/python", "/bin/sh"))
    return services / "systemd"


needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


@needs_systemd
@pytest.mark.parametrize("name", UNITS)
def test_systemd_accepts_the_unit(name: str, installed: Path) -> None:
    done = call("systemd-analyze", "verify", "--man=no", installed / name)
    assert (done.returncode, done.stderr) == (0, "")
    text = (installed / name).read_text()
    (installed / name).write_text(text.replace("NoNewPrivileges", "NoNewPrivilege"))
    done = call("systemd-analyze", "verify", "--man=no", installed / name)
    assert "Unknown key 'NoNewPrivilege'" in done.stderr  # it reads the file


@needs_systemd
@pytest.mark.parametrize("name", UNITS)
def test_the_unit_is_hardened(name: str, installed: Path) -> None:
    """systemd's own score, 0 to 100; a unit without any setting has 96."""
    limit = "32" if "PrivateDevices" in (installed / name).read_text() else "52"
    check = ["systemd-analyze", "security", "--offline=yes", f"--threshold={limit}"]
    done = call(*check, installed / name)
    assert done.returncode == 0, done.stdout
    text = (installed / name).read_text()
    (installed / name).write_text(re.sub(r"(?m)^(Protect|Restrict|Private|System).*\n", "", text))
    assert call(*check, installed / name).returncode != 0


@pytest.mark.parametrize(
    "setting", ["DynamicUser=yes", "ProtectSystem=strict", "NoNewPrivileges=yes"]
)
def test_what_a_unit_must_have(setting: str, services: Path) -> None:
    for name in UNITS:
        assert f"\n{setting}\n" in (services / "systemd" / name).read_text()


INSTRUCTION = re.compile(r"(FROM|WORKDIR|COPY|RUN|USER|EXPOSE|HEALTHCHECK|ENTRYPOINT|CMD) (\S.*)")


def test_the_dockerfile_is_well_formed(services: Path) -> None:
    lines = [INSTRUCTION.fullmatch(line) for line in read_dockerfile(services).splitlines()]
    found = [(match[1], match[2]) for match in lines if match]
    assert len(found) == len(lines)
    names = [name for name, _ in found]
    assert names[0] == "FROM"
    assert names.count("USER") == names.count("ENTRYPOINT") == names.count("CMD") == 1
    assert names.index("USER") > max(i for i, name in enumerate(names) if name in ("RUN", "COPY"))
    for name, text in found:
        if name == "HEALTHCHECK":
            text = text.partition("CMD ")[2]
        if text.startswith("["):
            assert all(isinstance(word, str) for word in json.loads(text)), text
    assert re.fullmatch(r"[a-z0-9./-]+:[\w.-]+", found[0][1]), "the base has a tag"
    assert "--require-hashes" in read_dockerfile(services)


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_hadolint_accepts_the_dockerfile(services: Path) -> None:
    done = call("hadolint", services / "Dockerfile")
    assert done.returncode == 0, done.stdout + done.stderr


def read_dockerfile(services: Path) -> str:
    return (services / "Dockerfile").read_text()


def test_every_board_has_a_base_image() -> None:
    images = {name: find_bundle_target(name).image for name in BUNDLE_TARGETS}
    assert images["linux-arm64"] == images["linux-x86-64"] == "python:3.11-slim-bookworm"
    assert all(images[name] in IMAGES.values() for name in images if name.startswith("jetson"))
    assert images["android"] == ""
