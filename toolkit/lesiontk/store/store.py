"""Artefacts on disk: keys, locks, reuse, lineage. Only this module makes artefacts.

An artefact is ``<workspace>/<kind>-<first 12 digits of key>/`` with a ``manifest.json`` written
last in a temporary folder that is then renamed: a folder with a manifest is whole.
"""

from __future__ import annotations

import logging
import shutil
import time
import traceback
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

from lesiontk.errors import DataError, LesionTKError, UsageError
from lesiontk.files.hashing import hash_document, hash_file
from lesiontk.progress import Progress
from lesiontk.records import (
    ARTEFACT_NAME,
    Ancestry,
    Artefact,
    Failure,
    FileEntry,
    Manifest,
    ManifestHeader,
    ParentEntry,
)
from lesiontk.stage import (
    BuildObserver,
    Context,
    EpochObserver,
    Stage,
    StageConfig,
    StoppedError,
    kind_of_role,
)
from lesiontk.store.folder import FAILURE, replace_folder
from lesiontk.store.machine_paths import MachinePaths
from lesiontk.store.manifest import FORMAT, MANIFEST, write_manifest
from lesiontk.store.shared import SharedStore
from lesiontk.store.sharing import SharingFolder
from lesiontk.system.cores import count_cores
from lesiontk.system.disk import explain_disk_error
from lesiontk.system.environment import describe_environment, version_of

logger = logging.getLogger(__name__)


class Store(SharingFolder):
    """The artefacts of one workspace, which others can use where it has a `shared` store."""

    def __init__(
        self,
        workspace: Path,
        progress: Progress | None = None,
        threads: int | None = None,
        on_epoch: EpochObserver | None = None,
        shared: SharedStore | None = None,
        observer: BuildObserver | None = None,
    ):
        super().__init__(workspace, progress, shared)
        self._threads = threads or count_cores()
        self._on_epoch = on_epoch
        self.observer = observer or BuildObserver()
        self._paths = MachinePaths(workspace)

    def for_worker(self, index: int) -> Store:
        """Return the store of one worker of a distributed training; worker 0 uses this store.

        It is ``workers/<index>`` in this workspace, which does not list its artefacts.
        """
        if index == 0:
            return self
        return Store(self.workspace / "workers" / str(index), self.progress, self._threads)

    def observed_by(self, on_epoch: EpochObserver) -> Store:
        """Return this store with an observer of the epochs of each training.

        Where it raises `StoppedError`, `build` does, and the training can be continued later.
        """
        return Store(
            self.workspace, self.progress, self._threads, on_epoch, self.shared, self.observer
        )

    @property
    def epoch_observer(self) -> EpochObserver | None:
        """The observer of `observed_by`, if any."""
        return self._on_epoch

    # ---------------------------------------------------------------- build

    def build(
        self,
        stage: Stage,
        config: StageConfig,
        parents: Mapping[str, Artefact],
        *,
        recipe: Mapping[str, Any] | None = None,
        restart: bool = False,
    ) -> Artefact:
        """Return the artefact of `stage` for these inputs, made now or reused if intact.

        With `restart` the checkpoints of an earlier, unfinished run are deleted. Without it they
        are resumed, also those of a run with another budget.

        With a shared store the artefact is fetched from there if it has one, and is copied there
        with its ancestors otherwise. Of two that were made at once, the first that is there
        replaces the other. A measurement of this machine is copied, too, and never replaced.

        Raises `DataError` if a parent no longer matches its manifest. A failure leaves
        ``failed.json`` (and what the stage had written) instead of a manifest and is raised
        again. Raises `MissingRequirementError` if the shared store cannot be used.
        """
        _check_parents(stage, parents)
        self.observer.connect()
        if self.shared is not None:
            self.shared.check()
        for parent in parents.values():
            self.share(parent)
        identity = self._identify(stage, config, parents)
        key = hash_document(identity)
        target = self.workspace / f"{stage.info.produces}-{key[:12]}"
        shared = stage.without_budget(config).key_document()
        resume_key = hash_document({**identity, "config": shared})
        scratch = self.workspace / ".scratch" / f"{stage.info.produces}-{resume_key[:12]}"
        with self._lock(scratch.name, log=True):
            document = self._conceal(recipe)
            found = partial(self._reuse, target, key, parents, document)
            measures = stage.info.needs.alone  # another machine of its kind may be busier
            artefact = found()
            with ExitStack() as claim:
                if artefact is None and not measures:
                    artefact = self._reuse_shared(target.name, found)
                    if artefact is None and not claim.enter_context(self._claim(target.name)):
                        artefact = self._reuse_shared(target.name, found)
                if artefact is None:
                    if restart:
                        shutil.rmtree(scratch, ignore_errors=True)
                    artefact = self._make(
                        stage, config, parents, identity, key, target, scratch, document
                    )
                with self._lock("use_order"):
                    self._use_order.put_last(artefact.name)
                try:
                    if measures:
                        self.share(artefact)
                    else:
                        artefact = self._agree(artefact, found)
                finally:
                    self.observer.end(artefact)
            return artefact

    def _conceal(self, recipe: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the recipe as stored in a manifest, without the paths of this machine."""
        with self._lock("machine_paths"):
            concealed: dict[str, Any] = self._paths.conceal(dict(recipe or {}))
        return concealed

    def _identify(
        self, stage: Stage, config: StageConfig, parents: Mapping[str, Artefact]
    ) -> dict[str, Any]:
        info = stage.info
        return {
            "format": FORMAT,
            "stage": {"name": info.name, "version": info.version},
            "schema_version": info.schema_version,
            "config": config.key_document(),
            "parents": {
                role: stage.identify_parent(role, parent)
                for role, parent in sorted(parents.items())
            },
            "external_inputs": stage.external_inputs(config),
            "tools": {
                name: version_of(name) for name in sorted({*stage.list_tools(config, parents)})
            },
        }

    def _reuse(
        self,
        target: Path,
        key: str,
        parents: Mapping[str, Artefact],
        recipe: Mapping[str, Any],
    ) -> Artefact | None:
        if not target.exists():
            return None
        why = self.damage(target)
        if why is None:
            artefact = self._load(target)
            if artefact.key == key:
                logger.info("%s: reused", target.name)
                return self._renew(artefact, parents, recipe)
            why = "key prefix collision"
        logger.warning("%s: rebuilt, because %s", target.name, why)
        return None

    def _renew(
        self, artefact: Artefact, parents: Mapping[str, Artefact], recipe: Mapping[str, Any]
    ) -> Artefact:
        """Return a reused artefact with the current recipe, outside key and content.

        A parent that is missing or changed is replaced by the given one, which is equivalent
        because it has the same key.
        """
        recorded = artefact.manifest.parents
        lines = {
            role: entry if self._find_parent(artefact, entry) else _describe_parent(parents[role])
            for role, entry in recorded.items()
        }
        if recipe in ({}, artefact.manifest.recipe) and lines == recorded:
            return artefact
        changed = artefact.manifest.model_copy(update={"parents": lines, "recipe": recipe})
        write_manifest(artefact.path, changed.model_dump())
        return self._load(artefact.path)

    def _make(
        self,
        stage: Stage,
        config: StageConfig,
        parents: Mapping[str, Artefact],
        identity: Mapping[str, Any],
        key: str,
        target: Path,
        scratch: Path,
        recipe: Mapping[str, Any],
    ) -> Artefact:
        for role, parent in parents.items():
            why = self.damage(parent.path)
            if why is not None:
                raise DataError(
                    f"{parent.name} cannot be used as {role}: {why}. Run the command that made it "
                    "again; it will be rebuilt."
                )
        logger.info("%s: stage %s", target.name, stage.info.name)
        self._clear_dead()
        temporary = self.workspace / f".{scratch.name}.tmp"
        header = _header(stage, key, identity, parents, recipe)
        self.observer.begin(header)
        start = time.perf_counter()
        try:
            shutil.rmtree(temporary, ignore_errors=True)  # safe: this process holds the lock
            temporary.mkdir(parents=True)
            scratch.mkdir(parents=True, exist_ok=True)
            context = Context(
                temporary,
                scratch,
                header.recipe_name,
                self.progress,
                self._threads,
                partial(self._observe_epoch, header),
            )
            output = stage.run(parents, config, context)
            manifest = Manifest(
                **dict(header),
                files=_describe_files(temporary),
                auxiliary=list(output.auxiliary),
                facts=dict(output.facts),
                measured=dict(output.measured),
                environment=describe_environment(),
                created=time.time(),
                seconds=round(output.earlier_seconds + time.perf_counter() - start, 3),
            )
            write_manifest(temporary, manifest.model_dump())
            replace_folder(target, temporary)
        except (KeyboardInterrupt, StoppedError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            self.observer.fail(header, error)
            raise
        except Exception as error:
            self.observer.fail(header, error)
            if disk_error := explain_disk_error(error, self.workspace):
                shutil.rmtree(temporary, ignore_errors=True)
                raise disk_error from error
            _record_failure(header, error, temporary, target)
            raise
        if not output.unfinished:
            shutil.rmtree(scratch, ignore_errors=True)
        return self._load(target)

    def _observe_epoch(
        self, header: ManifestHeader, epoch: int, metrics: Mapping[str, float]
    ) -> None:
        self.observer.epoch(header, epoch, metrics)
        if self._on_epoch is not None:
            self._on_epoch(epoch, metrics)

    # ---------------------------------------------------------------- read

    def resolve(self, reference: str, kind: str | None = None) -> Artefact:
        """Return the artefact that a user's reference identifies.

        `reference` is ``latest``, ``latest:RECIPE``, a folder's name, the beginning of a key (four
        digits or more) or a path. A name that the workspace lacks is fetched from the shared store.
        Raises `UsageError` if none or several match.
        """
        folder = self._folder_of(reference)
        if folder is None and ARTEFACT_NAME.fullmatch(reference) and self._fetch(reference):
            folder = self.workspace / reference
            with self._lock("use_order"):
                self._use_order.put_last(reference)
        if folder is not None:
            artefact = self._load(folder)
            if kind not in (None, artefact.kind):
                raise UsageError(f"{reference} is of kind {artefact.kind}; expected {kind}.")
            return artefact
        candidates = self.list_artefacts(kind)
        what = kind or "artefact"
        if reference == "latest" or reference.startswith("latest:"):
            recipe = reference.partition(":")[2]
            fitting = [a for a in candidates if recipe in ("", a.recipe_name)]
            if fitting:
                return fitting[0]
        else:
            fitting = [
                a
                for a in candidates
                if a.name == reference or (len(reference) >= 4 and a.key.startswith(reference))
            ]
            if len(fitting) == 1:
                return fitting[0]
            if fitting:
                names = ", ".join(a.name for a in fitting)
                raise UsageError(f"{reference!r} matches {names}; give more digits.")
        raise UsageError(
            f"no {what} in {self.workspace} matches {reference!r}; `lesiontk ls` lists them all"
            + (f", `lesiontk {_MAKER[kind]}` makes one." if kind in _MAKER else ".")
            + (f" Left out: {', '.join(sorted(self._left_out)[:5])}." if self._left_out else "")
            + _explain_path(reference)
        )

    def _folder_of(self, reference: str) -> Path | None:
        """Return the folder whose path or name the reference is, if it exists."""
        places = [Path(reference)]
        if Path(reference).name == reference:
            places.append(self.workspace / reference)
        with suppress(OSError, ValueError):  # not a path
            return next((place for place in places if (place / MANIFEST).is_file()), None)
        return None

    def parent(self, artefact: Artefact, role: str) -> Artefact:
        """Return the artefact's parent in that role, fetched from the shared store if missing."""
        entry = artefact.manifest.parents.get(role)
        if entry is None:
            raise DataError(f"{artefact.name} has no parent in the role {role!r}.")
        parent = self._find_parent(artefact, entry)
        if parent is None and artefact.path.parent.resolve() == self.workspace.resolve():
            parent = self._fetch(entry.name, entry.content)
        if parent is None:
            why = self.parent_damage(artefact, role) or "is no longer beside it"
            raise DataError(f"{artefact.name} was made from {entry.name}, which {why}.")
        return parent

    def lineage(self, artefact: Artefact) -> Ancestry:
        """Return the tree of an artefact's ancestors, here or in the shared store."""
        parents: dict[str, Ancestry] = {}
        for role, entry in artefact.manifest.parents.items():
            parent = self._find_parent(artefact, entry) or self._describe_shared(entry)
            if parent is not None:
                parents[role] = self.lineage(parent)
            else:
                why = self.parent_damage(artefact, role)
                parents[role] = Ancestry(
                    name=entry.name, content=entry.content, gone=why is None, changed=why
                )
        return Ancestry(
            name=artefact.name,
            content=artefact.content,
            stage=artefact.stage,
            config=artefact.manifest.config,
            parents=parents,
        )


_MAKER = {
    "model": "train",
    "engine": "quantize --int8",
    "split": "data split",
    "benchmark": "bench",
    "report": "report",
}


def _check_parents(stage: Stage, parents: Mapping[str, Artefact]) -> None:
    for role, parent in parents.items():
        expected = stage.info.accepts.get(kind_of_role(role))
        if expected is None:
            raise UsageError(f"stage {stage.info.name} has no parent in the role {role!r}.")
        if parent.kind not in expected.split("|"):
            raise UsageError(
                f"stage {stage.info.name} got {parent.name} as its {role}; expected {expected}."
            )


def _header(
    stage: Stage,
    key: str,
    identity: Mapping[str, Any],
    parents: Mapping[str, Artefact],
    recipe: Mapping[str, Any],
) -> ManifestHeader:
    made_from = {role: _describe_parent(parent) for role, parent in sorted(parents.items())}
    own = {"kind": stage.info.produces, "key": key, "parents": made_from, "recipe": recipe}
    return ManifestHeader.model_validate({**identity, **own})


def _describe_parent(parent: Artefact) -> ParentEntry:
    return ParentEntry(name=parent.name, key=parent.key, content=parent.content)


def _record_failure(
    header: ManifestHeader, error: Exception, temporary: Path, target: Path
) -> None:
    """Record the error, beside what the stage had written, in the artefact's place."""
    failure = Failure(
        **dict(header),
        error=str(error),
        error_class=type(error).__name__,
        traceback=None if isinstance(error, LesionTKError) else traceback.format_exc(),
    )
    with suppress(OSError):  # the error itself is what the user must see
        (temporary / FAILURE).write_text(failure.model_dump_json(indent=1) + "\n")
        replace_folder(target, temporary)


def _describe_files(folder: Path) -> dict[str, FileEntry]:
    return {
        path.relative_to(folder).as_posix(): FileEntry(
            bytes=path.stat().st_size, sha256=hash_file(path)
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _explain_path(reference: str) -> str:
    """Return why a reference that looks like a path is of no use; empty for others."""
    if Path(reference).exists():
        return f" {reference} exists, but is no artefact, no engine file and no bundle."
    if "/" in reference or Path(reference).suffix:
        return f" There is no file or folder {reference}."
    return ""
