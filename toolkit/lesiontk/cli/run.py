"""``lesiontk run``."""

from __future__ import annotations

from dataclasses import replace

import click

from lesiontk.cli.session import (
    RecipeOptions,
    Session,
    command_options,
    gate_option,
    load_recipe,
    print_text,
    recipe_options,
    weights_option,
)


@click.command()
@click.argument("recipe")
@recipe_options
@weights_option
@gate_option
@click.option("--dry-run", is_flag=True, help="Check and show the plan; do nothing.")
@command_options
def run(
    session: Session,
    recipe: str,
    options: RecipeOptions,
    gates: tuple[str, ...],
    dry_run: bool,
) -> None:
    """Run RECIPE (a name or a YAML file) from images to report.

    Finished steps are reused; after an interruption the same command continues.
    """
    from lesiontk.cli.run_summary import finish_run
    from lesiontk.workflow.choose_recipe import with_gates
    from lesiontk.workflow.steps import describe_plan
    from lesiontk.workflow.train import plan_run, run_recipe

    chosen = load_recipe(recipe, replace(options, overrides=with_gates(options.overrides, gates)))
    store = session.open_store()
    if dry_run:
        steps = describe_plan(plan_run(store, chosen))
        lines = [f"{s['step']:28} {s['stage']:11} from {', '.join(s['parents'].values()) or '-'}"
                 for s in steps]  # fmt: skip
        session.emit(steps, lambda: print_text("\n".join(lines)))
        return
    finish_run(session, run_recipe(store, chosen))
