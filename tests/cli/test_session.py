"""Nothing that a file or a person named steers the terminal."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from lesiontk.cli.session import print_text

CLI = Path(__file__).parents[2] / "toolkit" / "lesiontk" / "cli"
STEERING = "\x1b[2J\x1b]0;title\x07"
ALLOWED = {
    ("session.py", "click.echo(json.dumps(document, indent=1, default=str, allow_nan=False))"),
    ("session.py", "click.echo(escape_controls(str(text)), err=err)"),
    ("recipe.py", "click.echo(dump_template(chosen), nl=False)"),
}


def test_what_is_said_cannot_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_text(f"first {STEERING}\nsecond")
    print_text(f"note {STEERING}", err=True)
    ended = capsys.readouterr()
    assert ended.out == "first \\x1b[2J\\x1b]0;title\\x07\nsecond\n"
    assert ended.err == "note \\x1b[2J\\x1b]0;title\\x07\n"


def test_figures_keep_their_spaces_and_marks_of_direction_are_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    figure = "1\N{NARROW NO-BREAK SPACE}234 images, 69.6\N{NO-BREAK SPACE}%"
    print_text(f"{figure} \N{RIGHT-TO-LEFT OVERRIDE}gpj")
    assert capsys.readouterr().out == f"{figure} \\u202egpj\n"


def test_commands_print_by_it_alone() -> None:
    calls = {
        (path.name, ast.unparse(node))
        for path in CLI.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("print", "click.echo", "click.secho", "sys.stdout.write")
    }
    assert calls == ALLOWED


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "{engine}", f"{STEERING}.png"],
        ["ls", "--workspace", "x", f"--{STEERING}"],
        ["ls", STEERING],
        [f"{STEERING}"],
        ["data", "check", "--data", STEERING],
    ],
)
def test_names_on_the_command_line_are_escaped(words: list[str], tmp_path: Path) -> None:
    engine = CLI.parents[2] / "benchmarks" / "engines" / "cnn_7class" / "tflite_int8.tflite"
    (tmp_path / f"{STEERING}.png").write_bytes(b"no picture")
    done = subprocess.run(
        [sys.executable, "-m", "lesiontk", *(word.format(engine=engine) for word in words)],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "\\x1b[2J" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_logs_are_escaped(tmp_path: Path) -> None:
    """A folder of the workspace that is no artefact is named in a warning."""
    folder = tmp_path / f"model-{STEERING}"
    folder.mkdir()
    (folder / "manifest.json").write_text("{", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "lesiontk", "ls", "--workspace", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "model-\\x1b[2J" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
