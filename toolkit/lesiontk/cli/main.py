"""The command ``lesiontk``: a group whose commands are imported when they are called."""

from __future__ import annotations

import importlib
import sys
import traceback

import click

from lesiontk import __version__
from lesiontk.errors import LesionTKError, suggest
from lesiontk.freed_memory import keep_freed_memory

COMMANDS = {
    "doctor": ("doctor:doctor", "What this machine can run, and why not the rest."),
    "data": ("data:data", "Fetch, check and split images."),
    "calibration": ("calibration:calibration", "Draw, show and check calibration lists."),
    "train": ("train:train", "Train a recipe's network."),
    "import": ("import_model:import_model", "Take a Keras model trained elsewhere."),
    "resize": ("resize:resize", "Give a trained model smaller images, and let it recover."),
    "prune": ("prune:prune", "Remove channels of a trained model, and let it recover."),
    "sparsify": ("sparsify:sparsify", "Zero the smallest weights of a trained model."),
    "cluster": ("cluster:cluster", "Let each kernel of a trained model take a few values."),
    "distil": ("distil:distil", "Train a model further with a stronger one's answers."),
    "adopt": ("adopt:adopt", "Take weights for a model that were trained elsewhere."),
    "equalize": ("equalize:equalize", "Spread weights evenly over channels before int8."),
    "qat": ("qat:qat", "Train a model on with int8's rounding in the loop."),
    "sensitivity": ("sensitivity:sensitivity", "What int8 does to each layer alone."),
    "quantize": ("quantize:quantize", "Make int8 engines of a trained model."),
    "convert": ("convert:convert", "Convert a trained model to BACKEND:PRECISION."),
    "build": ("build:build", "The TensorRT plan of an ONNX engine, ahead of time."),
    "evaluate": ("evaluate:evaluate", "Accuracy of an engine, with confidence intervals."),
    "bench": ("bench:bench", "Latency and accuracy beside the full-precision parent."),
    "report": ("report:report", "One HTML file with everything a run found out."),
    "bundle": ("bundle:bundle", "A folder that runs on a device and tests itself there."),
    "check": ("check:check", "Would TensorRT take an ONNX file? Each node that it would not."),
    "predict": ("predict:predict", "Class probabilities of images."),
    "run": ("run:run", "A whole recipe, from images to report; resumable."),
    "demo": ("demo:demo", "The whole chain on synthetic images, in minutes."),
    "verify": ("verify:verify", "Check an artefact's files, and an engine against its parent."),
    "lineage": ("lineage:lineage", "What an artefact was made from."),
    "ls": ("ls:ls", "The artefacts of the workspace."),
    "recipe": ("recipe:recipe", "List and show recipes."),
}


class LazyGroup(click.Group):
    """Lists commands without importing them, so that ``--help`` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute = COMMANDS[name][0].split(":")
        command = getattr(importlib.import_module(f"lesiontk.cli.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS:
            ctx.fail(f"unknown command {args[0]!r}.{suggest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lesiontk")
def cli() -> None:
    """From a folder of dermoscopic images to a verified, optimized engine on an edge device.

    Start with `lesiontk demo`; then `lesiontk run cnn_7class --data DIR`, or step by step
    `lesiontk train`, `lesiontk quantize --int8`, `lesiontk bench`. Research software, not a
    medical device.
    """


def main() -> None:
    """Run the command line; exit 0 success, 1 gate failed, 2 bad input, 3 lacking, 70 bug."""
    keep_freed_memory()
    try:
        code = cli.main(prog_name="lesiontk", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo(
            "interrupted; what was finished is kept, run the same command to go on", err=True
        )
        code = 130
    except click.ClickException as error:
        error.show()
        code = 2
    except LesionTKError as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        click.echo(f"error: {error}", err=True)
        code = error.exit_code
    except OSError as error:  # a full disk, a folder without permission
        if "--debug" in sys.argv:
            traceback.print_exc()
        click.echo(f"error: {error}; what was finished is kept.", err=True)
        code = 3
    except Exception as error:  # noqa: BLE001 - a bug must not look like a failed gate
        traceback.print_exc()
        click.echo(f"this is a bug in lesiontk, please report it: {error!r}", err=True)
        code = 70
    sys.exit(code if isinstance(code, int) else 0)
