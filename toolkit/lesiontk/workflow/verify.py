"""Verification of artefacts against their manifests, and of engines against their parents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from lesiontk.backends.engine_facts import EngineFacts
from lesiontk.backends.reference_outputs import engine_file, run_engine
from lesiontk.data.images import open_images
from lesiontk.document import Record
from lesiontk.errors import DataError, GateFailedError
from lesiontk.evaluate.verification import Verification
from lesiontk.recipe import VerifyRule
from lesiontk.records import Artefact
from lesiontk.stages.convert import compare_outputs, verification_rows
from lesiontk.stages.fake_quant_outputs import run_fake_quantized
from lesiontk.store import Store
from lesiontk.workflow.lineage import descendant_engines, model_of


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedArtefacts(Record):
    """The names of artefacts that are `intact`, and of ancestors that are `gone`.

    `engines` has the agreement of each engine that was run again. `artefact` is what was verified,
    or the latest model of a workspace.
    """

    DERIVED: ClassVar[tuple[str, ...]] = ("verification",)

    artefact: str | None
    intact: tuple[str, ...]
    gone: tuple[str, ...]
    engines: Mapping[str, Verification]

    @property
    def verification(self) -> Verification | None:
        """The agreement of the artefact, if it is an engine."""
        return self.engines.get(self.artefact or "")


def verify_artefact(store: Store, artefact: Artefact) -> VerifiedArtefacts:
    """Check an artefact and its ancestors against their manifests, an engine against its parent.

    Raises `GateFailedError` if a file was changed, an ancestor was replaced, or an engine's
    outputs differ.
    """
    intact, gone = _check_files(store, [artefact])
    engines = {artefact.name: _verify_engine(store, artefact)} if artefact.kind == "engine" else {}
    return VerifiedArtefacts(artefact=artefact.name, intact=intact, gone=gone, engines=engines)


def verify_workspace(store: Store) -> VerifiedArtefacts:
    """Check the files of every artefact, and each engine of the latest model against it.

    Raises as `verify_artefact`, and `DataError` for a manifest that was edited.
    """
    intact, gone = _check_files(store, [store.resolve(name) for name in store.list_names()])
    model = next(iter(store.list_artefacts("model")), None)
    engines = descendant_engines(store, model) if model else []
    return VerifiedArtefacts(
        artefact=model.name if model else None,
        intact=intact,
        gone=gone,
        engines={engine.name: _verify_engine(store, engine) for engine in engines},
    )


def _check_files(
    store: Store, artefacts: Iterable[Artefact]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of intact and of deleted artefacts, including ancestors."""
    waiting = list(artefacts)
    intact: dict[str, None] = {}
    gone: dict[str, None] = {}
    while waiting:
        current = waiting.pop(0)
        if current.name in intact:
            continue
        why = store.damage(current.path)
        if why is not None:
            raise GateFailedError(
                f"{current.name} does not match its manifest: {why}. Run the command that made it "
                "again; it will be rebuilt."
            )
        intact[current.name] = None
        for role, entry in current.manifest.parents.items():
            why = store.parent_damage(current, role)
            if why is not None:
                raise GateFailedError(f"{current.name} was made from {entry.name}, which {why}.")
            try:
                waiting.append(store.parent(current, role))
            except DataError:
                gone[entry.name] = None
    return tuple(intact), tuple(gone)


def _verify_engine(store: Store, engine: Artefact) -> Verification:
    """Run an engine and its parent on the images that it was verified with."""
    images = open_images(store.parent(engine, "images"))
    rule = VerifyRule(**engine.manifest.config["verify"])
    facts = engine.read_facts(EngineFacts)
    rows = verification_rows(images, rule, facts.precision)
    pixels = images.pixels[rows]
    model = model_of(store, engine)
    expected = run_engine(engine_file(model), pixels, 1)
    received = run_engine(engine_file(engine), pixels, 1)
    compared = facts.verification.rounded_agreement
    rounded = run_fake_quantized(model, engine_file(engine), images, 1) if compared else None
    verification = compare_outputs(expected, received, engine_file(engine), rule, rounded)
    if not verification.passed:
        raise GateFailedError(
            f"{engine.name} does not agree with its parent: {verification.describe_failures()}."
        )
    return verification
