"""``lesiontk demo``."""

from __future__ import annotations

import click

from lesiontk.cli.session import Session, command_options, set_option


@click.command()
@set_option
@command_options
def demo(session: Session, overrides: tuple[str, ...]) -> None:
    """Run the recipe `demo`: the whole chain on synthetic lesions, in minutes.

    The images are procedural; the figures show that the chain works and nothing about patients.
    """
    from lesiontk.cli.run_summary import finish_run
    from lesiontk.recipe import read_recipe
    from lesiontk.workflow.train import run_recipe

    finish_run(session, run_recipe(session.open_store(), read_recipe("demo", overrides)))
