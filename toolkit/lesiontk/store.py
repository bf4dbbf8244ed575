"""Artefacts on disk: keys, manifests, locks, reuse, lineage. Only this module makes artefacts.

An artefact is ``<workspace>/<kind>-<first 12 digits of key>/`` with a ``manifest.json`` written
last in a temporary folder that is then renamed, so that a folder with a manifest is whole.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import platform
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from lesiontk.cores import count_cores
from lesiontk.errors import DataError, EnvironmentLacksError, LesionTKError, UsageError
from lesiontk.hashing import hash_document, hash_file
from lesiontk.progress import NoProgress, Progress
from lesiontk.records import Artefact, FileEntry
from lesiontk.stage import Context, Stage, StageConfig, StageOutput

logger = logging.getLogger(__name__)

FORMAT = 1
MANIFEST = "manifest.json"
FAILURE = "failed.json"

_MANIFEST_KEYS = {"format", "kind", "key", "content", "stage", "config", "parents", "recipe",
                  "files", "facts"}  # fmt: skip


class Store:
    """The artefacts of one workspace."""

    def __init__(
        self, workspace: Path, progress: Progress | None = None, threads: int | None = None
    ):
        self.workspace = workspace
        self.progress = progress or NoProgress()
        self._threads = threads or count_cores()

    def for_worker(self, index: int) -> Store:
        """Return the store that a worker of a shared training has to itself; 0 has this one.

        It lies in ``workers/<index>`` of this workspace, which does not list what is in there.
        """
        if index == 0:
            return self
        return Store(self.workspace / "workers" / str(index), self.progress, self._threads)

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

        With `restart` the checkpoints of an earlier, unfinished try are thrown away. Without it
        they are gone on with, also those of a try that had another budget.

        Raises `DataError` if a parent is no longer what its manifest says.
        A failure leaves ``failed.json`` (and what the stage had written, as evidence) in place of
        a manifest and is raised again.
        """
        _check_parents(stage, parents)
        identity = self._identify(stage, config, parents)
        key = hash_document(identity)
        target = self.workspace / f"{stage.info.produces}-{key[:12]}"
        shared = stage.without_budget(config).model_dump(mode="json")
        begun = hash_document({**identity, "config": shared})
        scratch = self.workspace / ".scratch" / f"{stage.info.produces}-{begun[:12]}"
        with self._lock(scratch.name):
            reused = self._reuse(target, key, recipe)
            if reused is not None:
                return reused
            if restart:
                shutil.rmtree(scratch, ignore_errors=True)
            return self._make(stage, config, parents, identity, key, target, scratch, recipe)

    def _identify(
        self, stage: Stage, config: StageConfig, parents: Mapping[str, Artefact]
    ) -> dict[str, Any]:
        info = stage.info
        return {
            "format": FORMAT,
            "stage": {"name": info.name, "version": info.version},
            "config": config.model_dump(mode="json"),
            "parents": {
                role: stage.identify_parent(role, parent)
                for role, parent in sorted(parents.items())
            },
            "external_inputs": stage.external_inputs(config),
            "tools": {name: _version(name) for name in info.tools},
        }

    def _reuse(self, target: Path, key: str, recipe: Mapping[str, Any] | None) -> Artefact | None:
        if not target.exists():
            return None
        why = self.damage(target)
        if why is None:
            artefact = self._load(target)
            if artefact.key == key:
                logger.info("%s: reused", target.name)
                if recipe and artefact.manifest["recipe"] != recipe:
                    # Outside key and content; later commands go on with the recipe of last use.
                    manifest = {**artefact.manifest, "recipe": dict(recipe)}
                    temporary = target / f"{MANIFEST}.tmp"
                    temporary.write_text(json.dumps(manifest, indent=1, allow_nan=False) + "\n")
                    temporary.replace(target / MANIFEST)
                    artefact = self._load(target)
                os.utime(target)  # "latest" means last used, not only last made
                return artefact
            why = "its key begins like another's"
        logger.warning("%s: rebuilt, because %s", target.name, why)
        return None

    def _make(
        self,
        stage: Stage,
        config: StageConfig,
        parents: Mapping[str, Artefact],
        identity: dict[str, Any],
        key: str,
        target: Path,
        scratch: Path,
        recipe: Mapping[str, Any] | None,
    ) -> Artefact:
        for role, parent in parents.items():
            why = self.damage(parent.path)
            if why is not None:
                raise DataError(
                    f"{parent.name} cannot be used as {role}: {why}. Run the command that made it "
                    "again; it will be rebuilt."
                )
        logger.info("%s: stage %s", target.name, stage.info.name)
        temporary = self.workspace / f".{target.name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)  # ours: we hold the lock
        temporary.mkdir(parents=True)
        scratch.mkdir(parents=True, exist_ok=True)
        name = str((recipe or {}).get("name", ""))
        context = Context(temporary, scratch, name, self.progress, self._threads)
        start = time.perf_counter()
        try:
            output = stage.run(parents, config, context)
            manifest = {
                **_header(stage, key, identity, parents, recipe),
                **_describe_files(temporary, output),
                "facts": {**output.facts, **output.measured},
                "environment": describe_environment(),
                "created": time.time(),
                "seconds": round(output.earlier_seconds + time.perf_counter() - start, 3),
            }
            text = json.dumps(manifest, indent=1, allow_nan=False)
        except KeyboardInterrupt:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        except Exception as error:
            failure = {
                **_header(stage, key, identity, parents, recipe),
                "error": str(error),
                "error_class": type(error).__name__,
                "traceback": None if isinstance(error, LesionTKError) else traceback.format_exc(),
            }
            (temporary / FAILURE).write_text(json.dumps(failure, indent=1) + "\n")
            _replace(target, temporary)
            raise
        (temporary / MANIFEST).write_text(text + "\n")
        _replace(target, temporary)
        if not output.unfinished:
            shutil.rmtree(scratch, ignore_errors=True)
        return self._load(target)

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        """Hold the lock of one key; it ends with the process, however that ends."""
        folder = self.workspace / ".locks"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stream = (folder / name).open("w")
        except OSError as error:
            raise EnvironmentLacksError(
                f"the workspace {self.workspace} cannot be written ({error.strerror}); "
                "name another with --workspace."
            ) from error
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.warning("%s: another process is making it; waiting", name)
                fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    # ---------------------------------------------------------------- read

    def _load(self, folder: Path) -> Artefact:
        try:
            manifest = json.loads((folder / MANIFEST).read_text())
            whole = manifest.keys() >= _MANIFEST_KEYS
        except (ValueError, AttributeError):
            whole = False
        if not whole:
            raise DataError(f"{folder}: the manifest cannot be read; the folder is no artefact.")
        return Artefact(folder, manifest)

    def damage(self, folder: Path) -> str | None:
        """Return why the folder is no intact artefact, or None if it is one."""
        if not (folder / MANIFEST).is_file():
            return "an earlier try failed" if (folder / FAILURE).is_file() else "it has no manifest"
        try:
            manifest = self._load(folder).manifest
            files = {name: FileEntry(**entry) for name, entry in manifest["files"].items()}
        except (DataError, AttributeError, TypeError):
            return "its manifest cannot be read"
        if manifest["format"] != FORMAT:
            return f"its manifest has format {manifest['format']}, not {FORMAT}"
        for name, entry in files.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != entry.bytes or hash_file(path) != entry.sha256:
                return f"{name} was changed"
        return None

    def list_artefacts(self, kind: str | None = None) -> list[Artefact]:
        """Return the artefacts with a manifest, the last used first."""
        if not self.workspace.is_dir():
            return []
        folders = [
            path
            for path in self.workspace.iterdir()
            if not path.name.startswith(".") and (path / MANIFEST).is_file()
        ]
        folders.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        artefacts = []
        for folder in folders:
            try:
                artefacts.append(self._load(folder))
            except DataError:
                logger.warning("%s: left out, because its manifest cannot be read", folder.name)
        return [artefact for artefact in artefacts if kind in (None, artefact.kind)]

    def failures(self) -> list[dict[str, Any]]:
        """Return the ``failed.json`` of every stage whose last try failed."""
        found = []
        for path in sorted(self.workspace.glob(f"*/{FAILURE}")):
            if path.parent.name.startswith("."):
                continue
            try:
                found.append(json.loads(path.read_text()))
            except ValueError:
                logger.warning("%s cannot be read and is left out", path)
        return found

    def resolve(self, reference: str, kind: str | None = None) -> Artefact:
        """Return the artefact that a user's reference means.

        `reference` is ``latest``, ``latest:RECIPE``, a folder's name, the beginning of a key (four
        digits or more) or a path. Raises `UsageError` if none or several fit.
        """
        if (Path(reference) / MANIFEST).is_file():
            artefact = self._load(Path(reference))
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
                raise UsageError(f"{reference!r} fits {names}; give more digits.")
        raise UsageError(
            f"no {what} in {self.workspace} fits {reference!r}; `lesiontk ls` shows what is there"
            + (f", `lesiontk {_MAKER[kind]}` makes one." if kind in _MAKER else ".")
        )

    def parent(self, artefact: Artefact, role: str) -> Artefact:
        """Return the artefact's parent in that role."""
        entry = artefact.manifest["parents"].get(role)
        if entry is None:
            raise DataError(f"{artefact.name} has no parent in the role {role!r}.")
        folder = artefact.path.parent / str(entry["name"])
        if not (folder / MANIFEST).is_file():
            raise DataError(
                f"{artefact.name} was made from {entry['name']}, which is no longer beside it."
            )
        return self._load(folder)

    def lineage(self, artefact: Artefact) -> dict[str, Any]:
        """Return the tree of an artefact's ancestors as nested documents."""
        parents: dict[str, Any] = {}
        for role, entry in artefact.manifest["parents"].items():
            folder = artefact.path.parent / str(entry["name"])
            present = (folder / MANIFEST).is_file()
            parents[role] = self.lineage(self._load(folder)) if present else {**entry, "gone": True}
        return {
            "name": artefact.name,
            "stage": artefact.stage,
            "config": artefact.manifest["config"],
            "content": artefact.content,
            "parents": parents,
        }


_MAKER = {
    "model": "train",
    "engine": "quantize --int8",
    "split": "data split",
    "benchmark": "bench",
    "report": "report",
}


def describe_environment() -> dict[str, Any]:
    """Return what of this machine a result may depend on; no host name, no path."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "cores": count_cores(),
        "lesiontk": _version("lesiontk"),
    }


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "absent"


def _check_parents(stage: Stage, parents: Mapping[str, Artefact]) -> None:
    for role, parent in parents.items():
        expected = stage.info.accepts.get(role.partition(":")[0])
        if expected is None:
            raise UsageError(f"stage {stage.info.name} has no parent in the role {role!r}.")
        if parent.kind not in expected.split("|"):
            raise UsageError(
                f"stage {stage.info.name} got {parent.name} as its {role}; expected {expected}."
            )


def _header(
    stage: Stage,
    key: str,
    identity: dict[str, Any],
    parents: Mapping[str, Artefact],
    recipe: Mapping[str, Any] | None,
) -> dict[str, Any]:
    return {
        "kind": stage.info.produces,
        "key": key,
        **{
            name: identity[name]
            for name in ("format", "stage", "config", "external_inputs", "tools")
        },
        "parents": {
            role: {"name": parent.name, "key": parent.key, "content": parent.content}
            for role, parent in sorted(parents.items())
        },
        "recipe": dict(recipe or {}),
    }


def _describe_files(folder: Path, output: StageOutput) -> dict[str, Any]:
    files = {
        path.relative_to(folder).as_posix(): asdict(FileEntry(path.stat().st_size, hash_file(path)))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    content = {
        name: entry["sha256"]
        for name, entry in files.items()
        if not any(name == aux or name.startswith(f"{aux}/") for aux in output.auxiliary)
    }
    return {
        "files": files,
        "auxiliary": list(output.auxiliary),
        "content": hash_document({"files": content, "facts": dict(output.facts)}),
    }


def _replace(target: Path, temporary: Path) -> None:
    """Put `temporary` in the place of `target`; what stood there is kept under another name."""
    if target.exists():
        number = 1
        while (aside := target.with_name(f".{target.name}.old-{number}")).exists():
            number += 1
        target.rename(aside)
    temporary.rename(target)
