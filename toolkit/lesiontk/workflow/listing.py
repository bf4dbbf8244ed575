"""The artefacts of a workspace, as rows of a table."""

from __future__ import annotations

from dataclasses import dataclass

from lesiontk.document import Record
from lesiontk.errors import DataError, UsageError, show_value, suggest
from lesiontk.records import Artefact
from lesiontk.stages import STAGES
from lesiontk.store import Store
from lesiontk.workflow.lineage import describe_derivation


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedArtefact(Record):
    """An artefact of a workspace; `what` is a model's derivation or an engine's target.

    `created` is a Unix time in seconds, `path` a folder or a URL.
    """

    name: str
    kind: str
    recipe: str
    what: str
    bytes: int
    created: float
    path: str


def list_workspace(
    store: Store, kind: str | None = None, *, remote: bool = False
) -> list[ListedArtefact]:
    """Return the artefacts, the last used first; with `remote` those of the shared store.

    Raises `UsageError` for an unknown kind, and with `remote` without a shared store.
    """
    found = store.list_shared(kind) if remote else store.list_artefacts(kind)
    place = store.shared.url if remote and store.shared else str(store.workspace)
    if kind is not None and not found:
        _check_kind(kind)
    return [
        ListedArtefact(
            name=artefact.name,
            kind=artefact.kind,
            recipe=artefact.recipe_name,
            what=_describe(artefact),
            bytes=sum(entry.bytes for entry in artefact.manifest.files.values()),
            created=artefact.manifest.created,
            path=f"{place}/{artefact.name}",
        )
        for artefact in found
    ]


def _describe(artefact: Artefact) -> str:
    if artefact.kind == "model":
        try:
            return describe_derivation(artefact)
        except DataError:
            return "made by another lesiontk"
    facts = artefact.facts
    return str(facts.get("target", facts.get("backend", "")))


def _check_kind(kind: str) -> None:
    kinds = sorted({stage.info.produces for _, stage in STAGES.items()})
    if kind not in kinds:
        raise UsageError(
            f"kind {show_value(kind)} is not a kind of artefact; expected one of "
            f"{', '.join(kinds)}.{suggest(kind, kinds)}"
        )
