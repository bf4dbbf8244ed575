"""Stage: the validation results of trainings that differ in their seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

from lesiontk.document import write_record
from lesiontk.evaluate.seeds import SeedComparison, SeedResult
from lesiontk.records import Artefact, ModelFacts
from lesiontk.stage import Context, Stage, StageConfig, StageInfo, StageOutput, StepId

DOCUMENT = "seeds.json"


class SeedRole(StepId):
    """The role of the model of a seed, as a parent."""

    seed: int

    @classmethod
    def of_seed(cls, seed: int) -> Self:
        """Return the role of a seed's model."""
        role = cls("model", f"seed{seed}")
        role.seed = seed
        return role


class CompareSeedsConfig(StageConfig):
    """The recipe's name."""

    name: str


class CompareSeedsStage(Stage):
    """Produces ``seeds.json``. The roles of its parents are `SeedRole`."""

    info: ClassVar[StageInfo] = StageInfo(
        name="compare_seeds",
        version=1,
        accepts={"model": "model"},
        produces="seed_comparison",
        config=CompareSeedsConfig,
        schema_version=SeedComparison.SCHEMA,
    )

    def run(
        self, parents: Mapping[str, Artefact], config: CompareSeedsConfig, context: Context
    ) -> StageOutput:
        roles = sorted((r for r in parents if isinstance(r, SeedRole)), key=lambda r: r.seed)
        facts = {role: parents[role].read_facts(ModelFacts) for role in roles}
        comparison = SeedComparison(
            recipe=config.name,
            split_hash=facts[roles[0]].split_hash,
            n=facts[roles[0]].validation.n,
            results=tuple(
                SeedResult(
                    seed=role.seed,
                    model=parents[role].name,
                    best_epoch=found.best_epoch,
                    metrics=found.validation.metrics,
                )
                for role, found in facts.items()
            ),
        )
        write_record(context.directory / DOCUMENT, comparison)
        return StageOutput({"seeds": [role.seed for role in roles], "best": comparison.best})


def read_seeds(artefact: Artefact) -> SeedComparison:
    """Return a comparison. Raises `DataError` for one of another version of lesiontk."""
    return artefact.read(DOCUMENT, SeedComparison)
