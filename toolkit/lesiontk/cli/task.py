"""``lesiontk task``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from lesiontk.cli.session import Session, command_options, print_text


@click.group()
def task() -> None:
    """List and write tasks: the classes of a model."""


@task.command("list")
@command_options
def list_command(session: Session) -> None:
    """List the packaged tasks and their classes."""
    from lesiontk.data.tasks import list_tasks, load_task

    found = {name: load_task(name) for name in list_tasks()}
    lines = [f"{name:12} {', '.join(task.labels)}: {task.title}" for name, task in found.items()]
    document = {
        name: {"title": task.title, "labels": task.labels, "critical": task.critical}
        for name, task in found.items()
    }
    session.emit(document, lambda: print_text("\n".join(lines)))


@task.command("new")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path),
              required=True, help="Folder of images and their table.")  # fmt: skip
@click.option("--critical", metavar="CLASS", help="The class that must not be missed.")
@click.option("--title", help="One line on the task.")
@command_options
def new_command(
    session: Session, file: Path, data: Path, critical: str | None, title: str | None
) -> None:
    """Write a commented task FILE for the classes of the images in --data."""
    from lesiontk.workflow.new_recipe import write_task

    classes = write_task(session.open_store(), file, data, critical=critical, title=title)

    def show() -> None:
        for found in classes:
            print_text(f"{found.label}: {found.images} images of {found.lesions} lesions")
        print_text(f"{file}: check which class is critical")

    session.emit({"task": str(file), "classes": [asdict(c) for c in classes]}, show)
