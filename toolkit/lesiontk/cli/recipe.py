"""``lesiontk recipe``."""

from __future__ import annotations

from pathlib import Path

import click

from lesiontk.cli.session import Session, command_options, print_text, set_option


@click.group()
def recipe() -> None:
    """List, show and write recipes."""


@recipe.command("list")
@command_options
def list_command(session: Session) -> None:
    """List the packaged recipes with their descriptions."""
    from lesiontk.recipe import list_recipes, read_recipe

    found = {name: read_recipe(name).description for name in list_recipes()}
    lines = [f"{name:28} {description}" for name, description in found.items()]
    session.emit(found, lambda: print_text("\n".join(lines)))


@recipe.command("show")
@click.argument("name")
@set_option
@command_options
def show_command(session: Session, name: str, overrides: tuple[str, ...]) -> None:
    """Print the recipe NAME (or a YAML file) with every default.

    The output is a valid recipe: `lesiontk recipe show NAME > mine.yaml`, then edit it.
    """
    from lesiontk.recipe import dump_template, read_recipe

    chosen = read_recipe(name, overrides)
    session.emit(
        # Unescaped, because the output may be read as a recipe again.
        chosen.model_dump(mode="json"),
        lambda: click.echo(dump_template(chosen), nl=False),
    )


@recipe.command("new")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path),
              required=True, help="Folder of images and their table.")  # fmt: skip
@click.option("--task", help="A task or its file; default: a matching task, else a new file.")
@click.option("--critical", metavar="CLASS", help="The class that must not be missed.")
@click.option("--like", metavar="RECIPE", help="The packaged recipe to start from.")
@command_options
def new_command(
    session: Session,
    file: Path,
    data: Path,
    task: str | None,
    critical: str | None,
    like: str | None,
) -> None:
    """Write a commented recipe FILE for the images in --data, and a task file if none matches."""
    from lesiontk.workflow.new_recipe import write_recipe

    made, new_task = write_recipe(
        session.open_store(), file, data, task=task, critical=critical, like=like
    )
    document = {"recipe": str(file), "name": made.name, "task": made.data.task,
                "new_task": str(new_task) if new_task else None}  # fmt: skip

    def show() -> None:
        if new_task is not None:
            print_text(f"{new_task}: the classes; check which is critical")
        print_text(f"{file}: the task is {made.data.task}; next: lesiontk run {file}")

    session.emit(document, show)
