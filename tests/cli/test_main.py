"""The exit code tells what happened; an error is one line on standard error."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lesiontk import __version__
from lesiontk.cli.main import main
from lesiontk.errors import (
    DataError,
    GateFailedError,
    LeakageError,
    LesionTKError,
    MissingRequirementError,
    UsageError,
)
from lesiontk.system.machine import Machine
from lesiontk.workflow.doctor import MachineFindings

FINDINGS = MachineFindings(
    lesiontk=__version__,
    machine=Machine(
        processor="p", architecture="a", cores=1, memory_bytes=None, system="", python="3"
    ),
    int8="exact.",
    gpu="none.",
    backends=(),
)


@dataclass(frozen=True)
class Ended:
    code: object
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``lesiontk`` with these arguments, as the console script does."""

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr("sys.argv", ["lesiontk", *arguments])
        for hook in ("excepthook", "unraisablehook"):
            monkeypatch.setattr(sys, hook, getattr(sys, hook))  # put back afterwards
        with pytest.raises(SystemExit) as ended:
            main()
        return Ended(ended.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException | None], None]:
    """Decide how the work of ``lesiontk doctor`` ends."""

    def decide(error: BaseException | None) -> None:
        def examine() -> MachineFindings:
            if error is not None:
                raise error
            return FINDINGS

        monkeypatch.setattr("lesiontk.workflow.doctor.examine_machine", examine)

    return decide


Decide = Callable[[BaseException | None], None]

each_error = pytest.mark.parametrize(
    ("error", "code"),
    [
        (GateFailedError("too much is lost."), 1),
        (LesionTKError("something."), 2),
        (UsageError("no such thing."), 2),
        (DataError("broken."), 2),
        (LeakageError("in two subsets."), 2),
        (MissingRequirementError("not installed."), 3),
    ],
    ids=lambda value: type(value).__name__,
)


def test_success_is_zero(run: Run, doctor: Decide) -> None:
    doctor(None)
    ended = run("doctor")
    assert (ended.code, ended.err) == (0, "")
    assert f"lesiontk {__version__}" in ended.out


@each_error
@pytest.mark.parametrize("json", [[], ["--json"]], ids=["text", "json"])
def test_an_error_is_one_line_and_its_code(
    run: Run, doctor: Decide, error: LesionTKError, code: int, json: list[str]
) -> None:
    doctor(error)
    assert run("doctor", *json) == Ended(code, "", f"error: {error}\n")


@each_error
def test_debug_adds_the_traceback_and_keeps_the_code(
    run: Run, doctor: Decide, error: LesionTKError, code: int
) -> None:
    doctor(error)
    ended = run("doctor", "--debug")
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.startswith("Traceback (most recent call last)")
    assert "in examine" in ended.err
    assert ended.err.endswith(f"error: {error}\n")


def test_a_bug_is_not_hidden_and_is_no_failed_gate(run: Run, doctor: Decide) -> None:
    doctor(ZeroDivisionError("division by zero"))
    ended = run("doctor")
    assert ended.code == 70
    assert "Traceback" in ended.err
    assert "bug in lesiontk" in ended.err


def test_an_interrupt_says_how_to_go_on(run: Run, doctor: Decide) -> None:
    doctor(KeyboardInterrupt())
    ended = run("doctor")
    assert ended.code == 130
    assert "run the same command to continue" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (FileNotFoundError(2, "No such file or directory", "x.jpg"), 2, "No such file.*x.jpg"),
        (OSError(40, "Too many levels of symbolic links", "x"), 2, "symbolic links"),
        (PermissionError(13, "Permission denied", "x"), 3, "Permission denied"),
        (OSError(28, "No space left on device"), 3, "the disk of / is full: .* are free"),
        (OSError(5, "Input/output error"), 3, "Input/output error"),
        (MemoryError(), 3, "too little memory"),
    ],
)
def test_an_error_of_the_machine_is_one_line(
    run: Run, doctor: Decide, error: Exception, code: int, said: str
) -> None:
    doctor(error)
    ended = run("doctor")
    assert ended.code == code
    assert re.fullmatch(f"error: .*{said}.*\n", ended.err)


def test_a_file_that_ends_early_is_no_interrupt(run: Run, doctor: Decide) -> None:
    """Click takes every EOFError for Ctrl-D."""
    doctor(EOFError("Compressed file ended"))
    ended = run("doctor")
    assert ended.code == 70
    assert "interrupted" not in ended.err


PROGRAM = """
import signal, sys, tempfile
import lesiontk.workflow.doctor
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored behind a shell's &
def examine():
    print(tempfile.gettempdir(), flush=True)
    sys.stdin.readline()
lesiontk.workflow.doctor.examine_machine = examine
sys.argv = ["lesiontk", "doctor"]
from lesiontk.cli.main import main
main()
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
def test_a_signal_ends_a_run_and_its_temporary_folder(number: int, code: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert folder.is_dir()
        process.send_signal(number)
        _, told = process.communicate()
    assert process.returncode == code
    assert "run the same command to continue" in told
    assert "Traceback" not in told
    assert not folder.exists()


def test_a_reader_that_closes_the_pipe_is_no_error() -> None:
    command = [sys.executable, "-m", "lesiontk", "recipe", "show", "demo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        told = process.stderr.read()
    assert (process.returncode, told) == (141, b"")


def test_a_name_that_is_no_text_can_be_printed(run: Run) -> None:
    ended = run("run", "\udcff.yaml")
    assert ended.code == 2
    assert "'\\udcff.yaml' does not exist" in ended.err


def test_a_workspace_that_is_no_folder_is_bad_usage(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").symlink_to("nowhere")
    for name in ("pipe", "loop", "gone"):
        ended = run("ls", "--workspace", str(tmp_path / name))
        assert ended.code == 2
        assert "is not a folder; specify another with --workspace" in ended.err


def test_an_unknown_command_suggests_the_nearest(run: Run) -> None:
    ended = run("quantise", "--int8")
    assert ended.code == 2
    assert "unknown command 'quantise'. Did you mean 'quantize'?" in ended.err
    assert ended.out == ""


def test_an_unknown_kind_of_artefact_names_the_nearest(run: Run, tmp_path: Path) -> None:
    ended = run("ls", "--kind", "modle", "--workspace", str(tmp_path))
    assert ended.code == 2
    assert "kind 'modle' is not a kind of artefact; expected one of benchmark, bund" in ended.err
    assert "Did you mean 'model'?" in ended.err
    assert run("ls", "--kind", "model", "--workspace", str(tmp_path)).code == 0


@pytest.mark.parametrize("group", [(), ("data",)])
def test_an_option_before_the_command_is_told_where_it_goes(run: Run, group: list[str]) -> None:
    ended = run(*group, "--workspace", "folder", "check")
    path = " ".join(("lesiontk", *group))
    assert ended.code == 2
    assert (
        f"{path} has no option --workspace; options follow the command, as in "
        f"`{path} COMMAND --workspace …`."
    ) in ended.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["doctor", "--jsn"], "No such option"),
        (["run"], "Missing argument 'RECIPE...'"),
        (["data", "chekc"], "No such command 'chekc'"),
        (["run", "demo", "--data", "nowhere"], "'nowhere' does not exist"),
        (["run", "dmo", "--dry-run"], "unknown recipe 'dmo'; .* Did you mean 'demo'?"),
        (["quantize"], "Specify --int8 or --mixed"),
        (["run", "demo", "--dry-run", "--set", "train.epoch=1"], "Did you mean 'epochs'?"),
    ],
)
def test_bad_usage_is_two_and_names_what_was_received(
    run: Run, arguments: list[str], message: str
) -> None:
    ended = run(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert "Traceback" not in ended.err
    for part in message.split(".*"):
        assert part in ended.err


def test_the_version_is_told(run: Run) -> None:
    ended = run("--version")
    assert ended.code == 0
    assert __version__ in ended.out


def test_without_arguments_the_commands_are_shown(run: Run) -> None:
    ended = run()
    assert "Usage: lesiontk" in ended.out + ended.err
    assert "quantize" in ended.out + ended.err
