"""Bundles measured on another machine: a real SSH server on this one, and a recorded adb."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from lesiontk.bench.device import read_device_bench
from lesiontk.bench.remote import open_transport
from lesiontk.bench.remote.adb import ADB
from lesiontk.bench.remote.measure import examine, measure
from lesiontk.bench.remote.ssh import SSH
from lesiontk.bench.remote.transport import Completed, Transport, UnreachableError
from lesiontk.cli.main import cli
from lesiontk.errors import DataError, LesionTKError, MissingRequirementError, UsageError
from lesiontk.progress import NoProgress
from lesiontk.stages import remote_timing
from lesiontk.stages.remote_timing import RemoteDevice, compare_on
from tests.deploy.bundles import ENGINES, make_bundle
from tests.measuring import measuring_here

FEW = ["--rounds", "20", "--warmup", "1"]
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("remote") / "bundle"
    return make_bundle(folder, "tflite_int8.tflite", "linux-x86-64")


# ------------------------------------------------------------------------- ssh


@dataclass
class Server:
    """An SSH server on the loopback interface, and where it puts temporary files."""

    port: int
    temporary: Path
    start: Callable[[], subprocess.Popen[bytes]]
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"

    def left(self) -> list[Path]:
        return [path for path in self.temporary.iterdir() if path.name.startswith("lesiontk")]

    def kill(self) -> None:
        """End the server and its connections, as a pulled cable does."""
        subprocess.run(["pkill", "-9", "-P", str(self.process.pid)], check=False)
        self.process.kill()
        self.process.wait()


def write_python(folder: Path, line: str) -> None:
    """Write the device's ``python3``."""
    (folder / "python3").write_text(f"#!/bin/sh\n{line}\n")
    (folder / "python3").chmod(0o755)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with keys of its own; the client uses them through a configuration of its own."""
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("OpenSSH's sshd and ssh are not installed")
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    temporary = tmp_path / "device"
    temporary.mkdir()
    python = tmp_path / "bin"
    python.mkdir()
    write_python(python, f'exec {sys.executable} "$@"')
    configuration = tmp_path / "sshd_config"
    configuration.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path / 'host'}\n"
        f"AuthorizedKeysFile {tmp_path / 'user.pub'}\nStrictModes no\nUsePAM no\nPidFile none\n"
        f"PasswordAuthentication no\n"
        # After the start-up files of the user's shell, which may change PATH.
        f"ForceCommand TMPDIR={temporary} PATH={python}:/usr/bin:/bin "
        'sh -c "$SSH_ORIGINAL_COMMAND"\n'
    )
    monkeypatch.setattr(
        "lesiontk.bench.remote.ssh.OPTIONS",
        (
            "-F", "none", "-T", "-i", str(tmp_path / "user"),
            "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR",
            "-o", f"UserKnownHostsFile={tmp_path / 'known'}", "-o", "ConnectTimeout=5",
        ),
    )  # fmt: skip

    def start() -> subprocess.Popen[bytes]:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        words = [SSHD or "", "-D", "-E", str(tmp_path / "log"), "-f", str(configuration)]
        process = subprocess.Popen(words)
        for _ in range(400):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return process
            time.sleep(0.05)
        raise AssertionError((tmp_path / "log").read_text())

    running = Server(port, temporary, start, start())
    yield running
    running.kill()


def test_a_machine_measures_and_keeps_nothing(server: Server, bundle: Path, tmp_path: Path) -> None:
    transport = open_transport(server.url)
    assert examine(transport).architecture == os.uname().machine
    (tmp_path / "out.json").write_bytes(measure(transport, bundle, [*FEW, "--device", "a board"]))
    found = read_device_bench(tmp_path / "out.json")
    assert (found.device, len(found.samples_ms), found.threads) == ("a board", 20, 1)
    assert found.agreement == 1.0
    assert server.left() == []


def test_a_lost_connection_is_taken_up_again(server: Server, bundle: Path, tmp_path: Path) -> None:
    """The server and its connections are killed while the runner works; another takes over."""
    waits = 0

    def drop() -> None:
        nonlocal waits
        waits += 1
        if waits == 1:
            server.kill()
            threading.Timer(1.0, lambda: setattr(server, "process", server.start())).start()

    out = measure(open_transport(server.url), bundle, ["--rounds", "400"], on_wait=drop)
    assert waits > 0
    assert len(json.loads(out)["latency_ms"]["samples"]) == 400
    assert server.left() == []


def test_a_device_that_nobody_asks_deletes_everything(server: Server, bundle: Path) -> None:
    def leave() -> None:
        assert len(server.left()) == 1
        server.kill()

    with pytest.raises(UnreachableError, match="cannot be reached"):
        measure(
            open_transport(server.url), bundle, ["--rounds", "100000"], lease_s=3, patience_s=1,
            on_wait=leave,
        )  # fmt: skip
    until = time.monotonic() + 20
    while server.left() and time.monotonic() < until:
        time.sleep(0.1)
    assert server.left() == []
    assert subprocess.run(["pgrep", "-f", str(server.temporary)], check=False).returncode == 1


def test_a_missing_requirement_is_named(server: Server, bundle: Path, tmp_path: Path) -> None:
    """A Python without packages: NumPy is asked for, and the folder is gone."""
    write_python(tmp_path / "bin", f'exec {sys.executable} -S "$@"')
    with pytest.raises(MissingRequirementError, match=r"numpy.*--install"):
        measure(open_transport(server.url), bundle, FEW)
    assert server.left() == []


@pytest.mark.slow
def test_requirements_are_installed_for_the_measurement_alone(
    server: Server, bundle: Path, tmp_path: Path
) -> None:
    """On a Python without packages the pinned requirements are installed, and deleted again."""
    write_python(tmp_path / "bin", f'exec {sys._base_executable} "$@"')  # type: ignore[attr-defined]
    out = measure(open_transport(server.url), bundle, FEW, install=True)
    runtime = json.loads(out)["runtime"]
    pinned = (bundle / "requirements.txt").read_text()
    assert f"ai-edge-litert=={runtime['version']}" in pinned
    assert server.left() == []


def test_a_machine_without_python_is_told_apart(server: Server, tmp_path: Path) -> None:
    write_python(tmp_path / "bin", "exit 127")
    with pytest.raises(MissingRequirementError, match="has no python3 that runs"):
        examine(open_transport(server.url))


QUICK = ("rounds=20", "queries=2", "warmup=1", "repeats=0", "scenarios=[single_stream]")


def test_what_the_device_measured_stands_in_the_benchmark(server: Server, tmp_path: Path) -> None:
    shutil.copy(ENGINES / "tflite_int8.tflite", tmp_path)
    words = [
        "bench", str(tmp_path / "tflite_int8.tflite"), "--target", server.url, "--json",
        *(word for key in QUICK for word in ("--set", f"bench.{key}")),
        "--gate", "p90_ms <= 0.000001", "--workspace", str(tmp_path / "workspace"),
    ]  # fmt: skip
    with measuring_here():  # on this machine
        done = CliRunner().invoke(cli, words)
    document = json.loads(done.stdout)
    (device,) = document["devices"]
    assert device["target"].endswith("tflite_int8.tflite")
    assert device["latency_ms"]["n"] == 20 * 2  # rounds, and queries in each
    (verdict,) = document["gate"]
    assert verdict["outcome"] == "failed"
    assert verdict["measured"] == pytest.approx(device["latency_ms"]["p90"], rel=1e-3)
    assert server.left() == []


def test_a_host_that_is_not_there_is_an_error_at_once() -> None:
    if shutil.which("ssh") is None:
        pytest.skip("OpenSSH's ssh is not installed")
    started = time.monotonic()
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1 cannot be reached"):
        examine(SSH("", "127.0.0.1", 1))
    assert time.monotonic() - started < 15


# ------------------------------------------------------------------------- adb

RECORDED = """#!{python}
# What adb 35 does with one device attached: shell, push, and its messages otherwise.
import shutil, subprocess, sys
words = sys.argv[1:]
serial = "R58M12ABCDE"
if words[:1] == ["-s"]:
    serial, words = words[1], words[2:]
if serial != "R58M12ABCDE":
    sys.exit("error: device '" + serial + "' not found")
if words[0] == "push":
    shutil.copy(words[1], words[2])
    print(words[1] + ": 1 file pushed, 0 skipped. 35.1 MB/s (2051 bytes in 0.000s)")
elif words[:2] == ["shell", "-T"]:
    sys.exit(subprocess.run(["sh", "-c", words[2]]).returncode)
else:
    sys.exit("adb: usage: unknown command " + words[0])
"""


@pytest.fixture
def adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recorded adb before the others in PATH; returns the device's temporary folder."""
    program = tmp_path / "adb"
    program.write_text(RECORDED.format(python=sys.executable))
    program.chmod(0o755)
    device = tmp_path / "device"
    device.mkdir()
    python = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{tmp_path}:{python}:/usr/bin:/bin")
    monkeypatch.setenv("TMPDIR", str(device))
    return device


def test_a_device_on_adb_measures_and_keeps_nothing(
    adb: Path, bundle: Path, tmp_path: Path
) -> None:
    transport = open_transport("adb://R58M12ABCDE")
    (tmp_path / "out.json").write_bytes(measure(transport, bundle, FEW))
    assert len(read_device_bench(tmp_path / "out.json").samples_ms) == 20
    assert list(adb.iterdir()) == []


def test_a_device_that_is_not_attached_is_an_error(adb: Path) -> None:
    with pytest.raises(UnreachableError, match=r"adb OTHER cannot be reached.*adb devices"):
        examine(ADB("", "OTHER", None))


def test_without_adb_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingRequirementError, match="adb is missing; install Android's platform"):
        examine(ADB("", "X", None))


# ------------------------------------------------------------------------ both


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ssh:/host", "expected ssh://USER@HOST"),
        ("shh://host", "Did you mean 'ssh'"),
        ("ssh://", "the host is ''"),
        ("ssh://-oProxyCommand=touch", "the host is"),
        ("ssh://-l@host", "the user is '-l'"),
        ("ssh://user:secret@host", "Passwords and keys"),
        ("ssh://host/tmp", "more than a user, a host and a port"),
        ("ssh://host:port", "is not a URL"),
        ("adb://-s", "the device is '-s'"),
        ("adb://user@X", "the device is 'user'"),
    ],
)
def test_a_url_of_wrong_form_is_refused(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_transport(url)


def test_two_engines_are_compared_on_the_device(server: Server) -> None:
    """Also an engine with itself, where nothing could be removed."""
    engine = ENGINES / "tflite_int8.tflite"
    found = compare_on(RemoteDevice(server.url), "tflite:int8", engine, engine, NoProgress())
    assert found.device == server.url
    assert found.n >= 100
    assert found.before == found.after
    assert found.after.size_bytes == engine.stat().st_size
    assert found.after.median_ms > 0
    assert server.left() == []


def test_options_without_a_machine_are_refused(tmp_path: Path) -> None:
    words = ["bench", str(ENGINES / "tflite_int8.tflite"), "--install"]
    done = CliRunner().invoke(cli, [*words, "--workspace", str(tmp_path)])
    assert "expected target" in str(done.exception)


class Scripted(Transport):
    """A device that answers each command with the next of its answers."""

    name = "a script"

    def __init__(self, *answers: Completed) -> None:
        self.answers = list(answers)

    def run(self, command: str, stdin: bytes = b"", timeout: float = 60.0) -> Completed:
        return self.answers.pop(0)

    def unpack(self, archive: bytes, folder: str) -> None:
        pass


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Completed(3, b"x86_64\n", ""), "no python3"),
        (Completed(0, b"x86_64\n3 7\n", ""), r"has Python 3\.7"),
        (Completed(0, b"Welcome!\nx86_64\n3 11\nBye", ""), "no python3"),
    ],
)
def test_a_python_that_is_none_or_too_old_is_told(answer: Completed, message: str) -> None:
    with pytest.raises(MissingRequirementError, match=message):
        examine(Scripted(answer))


@pytest.mark.parametrize("folder", [b"", b"/", b"/tmp/other", b"/tmp/lesiontk-bench.x; rm -rf /"])
def test_only_a_new_folder_is_ever_deleted(folder: bytes, bundle: Path) -> None:
    device = Scripted(Completed(0, folder, ""))
    with pytest.raises(DataError, match="has no folder for temporary files"):
        measure(device, bundle)
    assert device.answers == []


def test_an_unknown_processor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from lesiontk.recipe import BenchRule

    device = Scripted(Completed(0, b"riscv64\n3 11\n", ""))
    monkeypatch.setattr(remote_timing, "open_transport", lambda url: device)
    with pytest.raises(LesionTKError, match="the architecture riscv64; bundles are for x86_64"):
        remote_timing.measure_on(
            remote_timing.RemoteDevice("ssh://board"), {}, BenchRule(), NoProgress()
        )
