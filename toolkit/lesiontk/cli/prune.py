"""``lesiontk prune``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from lesiontk.cli.compression import compress, describe_validation
from lesiontk.cli.session import Session, command_options, set_option


@click.command()
@click.argument("model", default="latest")
@click.option("--keep-macs", type=float, metavar="SHARE", help="Share of the operations to keep.")
@click.option("--keep-parameters", type=float, metavar="SHARE", help="Share of the parameters.")
@click.option("--keep-latency", type=float, metavar="SHARE", help="Share of the measured latency.")
@click.option("--criterion", metavar="NAME", help="taylor (default), l1, l2, geometric_median, …")
@click.option("--iterations", type=int, help="Rounds of removing and recovering; default 1.")
@set_option
@command_options
def prune(
    session: Session,
    model: str,
    keep_macs: float | None,
    keep_parameters: float | None,
    keep_latency: float | None,
    criterion: str | None,
    iterations: int | None,
    overrides: tuple[str, ...],
) -> None:
    """Remove the least important channels of MODEL (default: the latest), and let it recover.

    What is left is a smaller network, faster on any device. --set takes the technique's own keys,
    as recover.epochs=8 or multiple=16.
    """
    options = {
        "keep_macs": keep_macs,
        "keep_parameters": keep_parameters,
        "keep_latency": keep_latency,
        "criterion": criterion,
        "iterations": iterations,
    }
    compress(session, model, "prune", options, describe_pruning, overrides)


def describe_pruning(facts: Mapping[str, Any]) -> str:
    """Return what is left of the network, and how good it is."""
    pruned = facts["pruned"]
    before, after = pruned["macs"]
    return (
        f"{after / before:.1%} of {before / 1e6:,.0f} million MACs and "
        f"{pruned['parameters'][1] / pruned['parameters'][0]:.1%} of the parameters are left; "
        f"{_describe_share(pruned)}{_describe_latency(facts)}{describe_validation(facts)}"
    )


def _describe_share(pruned: Mapping[str, Any]) -> str:
    """Return what was asked for, and why less is left; nothing where latency was the budget."""
    if "latency" in pruned or "next" not in (last := pruned["rounds"][-1]):
        return ""
    multiple = pruned["multiple"]
    finer = f" (--set multiple={multiple // 2} comes nearer)" if multiple > 1 else ""
    return (
        f"asked for at most {last['wanted']:.1%}, kept {last['kept']:.1%}: with the next group of "
        f"channels it would be {last['next']:.1%}{finer}; "
    )


def _describe_latency(facts: Mapping[str, Any]) -> str:
    """Return what came of --keep-latency; nothing where another share was to be kept."""
    if "latency" not in facts:
        return ""
    budget, latency = facts["pruned"]["latency"], facts["latency"]
    before, after, wanted = latency["before_ms"], latency["after_ms"], budget["wanted"]
    met = "at most" if after <= wanted * before else "which misses the"
    return (
        f"as {budget['engine']} {after:.2f} ms (before {before:.2f} ms, n = {latency['n']}), "
        f"{after / before:.1%} of the latency, {met} {wanted:.1%} asked for; "
    )
