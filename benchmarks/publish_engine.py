"""Replace published engines by engines of a compressed network.

    python benchmarks/publish_engine.py BENCHMARK TARGET… [--workspace DIR]

An engine that passed the recipe's gate replaces the larger one; the uncompressed model and the
engines of other targets are kept. Writes the engines into engines/RECIPE/, their results into
results/RECIPE.json (`replaced`), and their description into the model card.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
from published_card import ReplacedEngine, read_replaced, update_card
from steps import list_compressions, shorten_orders

from lesiontk.backends.reference_outputs import engine_file
from lesiontk.backends.stamp import stamp
from lesiontk.bench.benchmark import Benchmark
from lesiontk.calibration.draw import read_list
from lesiontk.evaluate.verdict import GateVerdict
from lesiontk.records import Artefact, ModelFacts
from lesiontk.stage import EngineName
from lesiontk.stages.bench import read_benchmark
from lesiontk.stages.calibrate import read_calibration
from lesiontk.stages.evaluate import read_assessment
from lesiontk.store import Store
from lesiontk.workflow.lineage import model_of, recipe_of, trained_of, training_seconds

HERE = Path(__file__).parent


@click.command()
@click.argument("reference")
@click.argument("targets", nargs=-1, required=True)
@click.option("--workspace", type=click.Path(path_type=Path), default="lesiontk-workspace")
def publish(reference: str, targets: tuple[str, ...], workspace: Path) -> None:
    """Publish the engines of TARGETS of a benchmark, if they passed their recipe's gate."""
    store = Store(workspace)
    benchmark = store.resolve(reference, "benchmark")
    recipe, found = benchmark.recipe_name, read_benchmark(benchmark)
    engines = {target: store.parent(benchmark, f"engine:{target}") for target in targets}
    model = model_of(store, engines[targets[0]])
    trained = trained_of(store, model)
    file = HERE / "results" / f"{recipe}.json"
    published = json.loads(file.read_text())
    facts = model.read_facts(ModelFacts)
    if trained.read_facts(ModelFacts).parameters != published["trained"]["parameters"]:
        raise click.ClickException(f"{trained.name} is not the network that {recipe} publishes.")
    steps = tuple(list_compressions(facts))
    orders = shorten_orders(recipe_of(model).model_dump(mode="json")["compress"], HERE.parent)
    seconds = training_seconds(store, model) - training_seconds(store, trained)
    replaced = read_replaced(published)
    for target, engine in engines.items():
        if "calibration" in engine.manifest.parents:
            check_calibration(store, engine, recipe)
        replaced[target] = ReplacedEngine(
            file=engine_file(engine).name,
            row=found.by_target[EngineName(target)],
            gate=passed_gate(found, target),
            benchmark=benchmark.name,
            parameters=facts.parameters,
            validation=facts.validation,
            recall_constraint=facts.recall_constraint,
            steps=steps,
            compress=orders,
            seconds=seconds,
            critical=found.critical,
            machine=found.machine,
        )
    if {entry.benchmark for entry in replaced.values()} != {benchmark.name}:
        raise click.ClickException(
            "the folder contains engines of another benchmark: replace all at once."
        )
    folder = HERE / "engines" / recipe
    for target, engine in engines.items():
        path = engine_file(engine)
        assessment = read_assessment(store.parent(benchmark, f"evaluation:{target}"))
        stamp(path, assessment, folder / path.name)
        click.echo(f"wrote {folder / path.name}")
    published["replaced"] = {target: entry.to_document() for target, entry in replaced.items()}
    verdicts = [v.to_document() for entry in replaced.values() for v in entry.gate]
    others = [v for v in published["benchmark"]["gate"] if v["engine"] not in replaced]
    published["benchmark"]["gate"] = [*others, *verdicts]
    file.write_text(json.dumps(published, indent=1) + "\n")
    card = folder / "README.md"
    card.write_text(update_card(card.read_text(), folder, published))


def passed_gate(found: Benchmark, target: str) -> tuple[GateVerdict, ...]:
    """Return the verdicts on a target; `ClickException` unless every gate passed."""
    verdicts = [verdict for verdict in found.verdicts if verdict.engine == target]
    missed = [verdict.describe() for verdict in verdicts if not verdict.passed]
    if missed or not verdicts:
        raise click.ClickException(
            f"{target}: {'; '.join(missed) or 'it was not tested by gates'}."
        )
    return tuple(verdicts)


def check_calibration(store: Store, engine: Artefact, recipe: str) -> None:
    """Raise `ClickException` for an engine with other calibration images than the published
    ones."""
    drawn = [row["image_id"] for row in read_calibration(store.parent(engine, "calibration"))]
    if sorted(drawn) != sorted(read_list(recipe)):
        raise click.ClickException(
            f"{engine.name} was calibrated on other images than {recipe}'s list."
        )


if __name__ == "__main__":
    publish()
