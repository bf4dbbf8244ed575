"""The command ``lesiontk``: a group whose commands are imported when they are called."""

from __future__ import annotations

import errno
import importlib
import io
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import click

from lesiontk import __version__
from lesiontk.cli.compression import make_command, name_command
from lesiontk.cli.run_folder import own_temporary_folder
from lesiontk.cli.session import print_text
from lesiontk.errors import MESSAGE, LesionTKError, escape_controls, shorten, show_value, suggest
from lesiontk.system.disk import explain_disk_error
from lesiontk.system.malloc_tuning import keep_freed_memory
from lesiontk.technique import TECHNIQUES

AFTER = "import"
"""The command after which the techniques' commands are listed."""
COMMANDS = {
    "doctor": ("doctor:doctor", "Show the back ends that run here and why others do not."),
    "data": ("data:data", "Fetch, check and split images."),
    "calibration": ("calibration:calibration", "Draw, show and check calibration lists."),
    "train": ("train:train", "Train a recipe's network."),
    "import": ("import_model:import_model", "Import a Keras model trained elsewhere."),
    "encoder": ("encoder:encoder", "Make a teacher of a frozen image encoder (ONNX)."),
    "sensitivity": ("sensitivity:sensitivity", "Measure what int8 costs in each layer."),
    "quantize": ("quantize:quantize", "Quantize a model to int8."),
    "convert": ("convert:convert", "Convert a model to BACKEND:PRECISION."),
    "build": ("build:build", "Build a TensorRT engine of an ONNX file ahead of time."),
    "evaluate": ("evaluate:evaluate", "Measure accuracy with confidence intervals."),
    "bench": ("bench:bench", "Measure latency and accuracy against the float32 parent."),
    "robustness": (
        "robustness:robustness",
        "Measure what corrupted images cost an engine.",
    ),
    "profile": ("profile:profile", "Measure the latency of each layer, the slowest first."),
    "gate": ("gate:gate", "Show the smallest loss that a test split can resolve."),
    "report": ("report:report", "Write one HTML file with all results."),
    "input-checks": ("input_checks:input_checks", "Fit checks of image quality and domain."),
    "bundle": ("bundle:bundle", "Write a folder that runs on a device, with a self-test."),
    "check": ("check:check", "Check whether TensorRT accepts an ONNX file."),
    "predict": ("predict:predict", "Print class probabilities of images."),
    "run": ("run:run", "Run a whole recipe, from images to report; resumable."),
    "search": ("search:search", "Search a space of recipes for the best engines."),
    "demo": ("demo:demo", "Run the whole chain on synthetic images, in minutes."),
    "verify": ("verify:verify", "Check an artefact's files, and an engine against its parent."),
    "lineage": ("lineage:lineage", "Show what an artefact was made from."),
    "ls": ("ls:ls", "List the artefacts of the workspace."),
    "recipe": ("recipe:recipe", "List, show and write recipes."),
    "task": ("task:task", "List and write tasks: the classes of a model."),
}


def list_summaries() -> dict[str, str]:
    """Return every command with its description, including those of the techniques."""
    summaries = {}
    for name, (_, summary) in COMMANDS.items():
        summaries[name] = summary
        if name == AFTER:
            summaries |= {name_command(n): text for n, text in TECHNIQUES.summarize().items()}
    return summaries


class LazyGroup(click.Group):
    """A group that lists commands without importing them, so that ``--help`` is fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(list_summaries())

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        for technique in TECHNIQUES:
            if name == name_command(technique):
                return make_command(technique)
        if name not in COMMANDS:
            return None
        module, attribute = COMMANDS[name][0].split(":")
        command = getattr(importlib.import_module(f"lesiontk.cli.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a closed pipe is not an error."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # Buffered output must not be written when the process ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.exceptions.Exit(141) from None
        return result

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = list_summaries()
        if args and args[0] in TECHNIQUES.renamed:
            current = name_command(TECHNIQUES.renamed[args[0]])
            print_text(f"lesiontk {args[0]} is now called lesiontk {current}.", err=True)
            args = [current, *args[1:]]
        if args and args[0] not in known:
            ctx.fail(f"unknown command {args[0]!r}.{suggest(args[0], known)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([*list_summaries().items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lesiontk")
def cli() -> None:
    """From a folder of dermoscopic images to a verified, optimized engine on an edge device.

    Start with `lesiontk demo`; then `lesiontk run cnn_7class --data DIR`, or step by step
    `lesiontk train`, `lesiontk quantize --int8`, `lesiontk bench`. Research software, not a
    medical device.
    """


class Terminated(KeyboardInterrupt):
    """A termination signal; the clean-up is that of Ctrl-C."""


def _terminate(number: int, frame: object) -> None:
    raise Terminated(number)


def main() -> None:
    """Run the command line.

    Exit codes: 0 success, 1 gate failed, 2 bad input, 3 missing requirement, 70 bug, 130
    interrupted (Ctrl-C), 143 terminated (SIGTERM; 129 for SIGHUP), 141 closed pipe.
    """
    keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files hold any bytes
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(number, _terminate)
    with own_temporary_folder():
        code = _run()
    if code == LACKING and "--debug" not in sys.argv:
        # HDF5 writes to the full disk again when its objects are destroyed.
        sys.excepthook = lambda *_: None
        sys.unraisablehook = lambda _: None
    sys.exit(code)


def _run() -> int:
    """Return the exit code of the command in ``sys.argv``; its error goes to standard error."""
    try:
        code = cli.main(prog_name="lesiontk", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt) as error:
        cause = error if isinstance(error, KeyboardInterrupt) else error.__cause__
        if isinstance(cause, EOFError):  # click treats it as Ctrl-D
            return _report_bug(cause)
        print_text("interrupted; finished work is kept, run the same command to continue", err=True)
        return 128 + int(cause.args[0]) if isinstance(cause, Terminated) else 130
    except click.ClickException as error:
        error.message = escape_controls(shorten(_describe_usage(error), MESSAGE))  # type: ignore[misc]
        error.show()
        return 2
    except LesionTKError as error:
        return _report(error, error.exit_code)
    except OSError as error:
        disk_error = explain_disk_error(error, Path("/"))
        if disk_error is not None:
            return _report(disk_error, disk_error.exit_code)
        name = "" if error.filename is None else f": {show_value(str(error.filename))}"
        shown = LesionTKError(f"{error.strerror or error}{name}").with_traceback(
            error.__traceback__
        )
        return _report(shown, 2 if error.errno in PATHS else 3)
    except MemoryError as error:
        shown = LesionTKError("this machine has too little memory; try fewer or smaller images.")
        return _report(shown.with_traceback(error.__traceback__), 3)
    except Exception as error:  # noqa: BLE001 - a bug must not look like a failed gate
        return _report_bug(error)
    return code if isinstance(code, int) else 0


def _describe_usage(error: click.ClickException) -> str:
    """Return click's message; for an option before the command, also its right place."""
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        path = error.ctx.command_path
        if isinstance(error.ctx.command, click.Group):
            return (
                f"{path} has no option {error.option_name}; options follow the command, as in "
                f"`{path} COMMAND {error.option_name} …`."
            )
    return error.message


LACKING = 3
PATHS = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG}
"""Errors of the machine that concern a given path."""


def _report(error: LesionTKError, code: int) -> int:
    if "--debug" in sys.argv:
        traceback.print_exception(error)
    print_text(f"error: {error}", err=True)
    return code


def _report_bug(error: BaseException) -> int:
    traceback.print_exception(error)
    print_text(f"this is a bug in lesiontk, please report it: {error!r}", err=True)
    return 70
