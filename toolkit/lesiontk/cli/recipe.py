"""``lesiontk recipe``."""

from __future__ import annotations

import click

from lesiontk.cli.session import Session, command_options, set_option


@click.group()
def recipe() -> None:
    """List and show recipes."""


@recipe.command("list")
@command_options
def list_command(session: Session) -> None:
    """Name the recipes that are shipped, and what each is."""
    from lesiontk.recipe import list_recipes, read_recipe

    found = {name: read_recipe(name).description for name in list_recipes()}
    lines = [f"{name:28} {description}" for name, description in found.items()]
    session.emit(found, lambda: click.echo("\n".join(lines)))


@recipe.command("show")
@click.argument("name")
@set_option
@command_options
def show_command(session: Session, name: str, overrides: tuple[str, ...]) -> None:
    """Print the recipe NAME (or a YAML file) with every default."""
    from lesiontk.recipe import dump_recipe, read_recipe

    chosen = read_recipe(name, overrides)
    session.emit(chosen.model_dump(mode="json"), lambda: click.echo(dump_recipe(chosen), nl=False))
