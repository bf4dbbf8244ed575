"""``lesiontk gate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lesiontk.cli.session import (
    RecipeOptions,
    Session,
    command_options,
    gate_option,
    load_recipe,
    print_text,
    recipe_options,
)

if TYPE_CHECKING:
    from lesiontk.evaluate.gate_power import GatePower


@click.group()
def gate() -> None:
    """Show what the gates of a recipe can resolve."""


@gate.command("power")
@click.argument("recipe")
@recipe_options
@gate_option
@command_options
def power_command(
    session: Session, recipe: str, options: RecipeOptions, gates: tuple[str, ...]
) -> None:
    """Show the smallest loss that the test images of RECIPE's split can resolve, for each gate.

    It depends on how often an engine and its parent disagree. Three kinds are shown: never, as
    often as the published int8 engines, and as often as the published compressed networks.
    """
    from dataclasses import replace

    from lesiontk.cli.tables import print_table
    from lesiontk.evaluate.gate_power import ASSUMED
    from lesiontk.workflow.choose_recipe import with_gates
    from lesiontk.workflow.gate_power import measure_power

    changes = replace(options, overrides=with_gates(options.overrides, gates))
    found = measure_power(session.open_store(), load_recipe(recipe, changes))

    def show() -> None:
        rows = [_describe(power) for power in found]
        print_table(["gate", "lesions", *ASSUMED, "can pass"], rows)
        if found:
            print_text(
                "the smallest margin that can be shown, alone and at the first step of Holm's "
                f"adjustment for {found[0].tests} tests; of a value, how far above it must be "
                "measured"
            )

    session.emit([power.to_document() for power in found], show)


def _describe(power: GatePower) -> list[str]:
    def both(change: str) -> str:
        smallest = (power.alone[change], power.among[change])
        return " / ".join("–" if x is None else f"{x:.3f}" for x in smallest)

    words = {True: "yes", False: "no", None: "–"}
    can = ", ".join(f"{change} {words[power.shows(change)]}" for change in power.among)
    return [power.gate, f"{power.lesions} {power.of}", *map(both, power.among), can]
