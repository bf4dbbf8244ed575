"""A search: candidates of a space, each an ordinary plan over the ordinary store.

Candidates are compared on validation images. The test images are read at the end, by the engines of
the front alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lesiontk.data.tasks import load_task
from lesiontk.errors import UsageError, show_value
from lesiontk.recipe import name_from_path, override_document
from lesiontk.search.criteria import Criteria
from lesiontk.search.database import reaching_database
from lesiontk.search.result import SearchTask
from lesiontk.search.space import RECIPE, SearchSpace, parse_space, read_space
from lesiontk.search.study import Study, open_study, recall_study
from lesiontk.store import Store
from lesiontk.workflow.executor import (
    HERE,
    THIS_PROCESS,
    Executor,
    WorkerOptions,
    open_executor,
)
from lesiontk.workflow.search_candidates import (
    Candidates,
    SearchOptions,
    check_comparable,
    choose_base,
)
from lesiontk.workflow.search_results import Results
from lesiontk.workflow.search_trials import Trials

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class Search:
    """A search in a workspace, checked and ready to run. Use `prepare_search`."""

    def __init__(
        self, store: Store, space: SearchSpace, options: SearchOptions, task: SearchTask, rule: str
    ) -> None:
        self.store, self.space, self.options = store, space, options
        self.task, self._rule = task, rule
        self.criteria = Criteria.parse(
            space.objectives, space.constraints, task.name, task.labels, task.positive
        )
        self.candidates = Candidates(store, space, options, self.criteria)
        self.folder = search_folder(store, options.name)
        self.study: Study

    @property
    def results(self) -> Results:
        """What the study has found so far."""
        return Results(self.folder, self.candidates, self.study, self.task, self._rule)

    def build_split(self) -> None:
        """Make the split of all candidates, so that bad images end the search before a trial."""
        self.study.agree("split", self.candidates.build_split().content, "split of the images")

    def run(self, executor: Executor = HERE) -> None:
        """Run trials until the space's number is reached, beside other processes that do so."""
        Trials(self.candidates, self.study, self.task, self._rule, executor).run()


def prepare_search(store: Store, space: SearchSpace, options: SearchOptions) -> Search:
    """Return a search, checked before any work: its values, criteria and database.

    Raises `UsageError` for a space that cannot be searched, or another one under the same name, and
    `MissingRequirementError` for a database that cannot be reached.
    """
    if NAME.fullmatch(options.name) is None:
        raise UsageError(
            f"the name of the search is {show_value(options.name)}; expected up to 64 lower-case "
            "letters, digits, - and _."
        )
    names = space.vary.get(RECIPE, [space.recipe])
    recipes = [choose_base(name, options, space.set) for name in names]
    first = recipes[0]
    for name, recipe in zip(names, recipes, strict=True):
        check_comparable(str(name), recipe, first)
    known = load_task(first.data.task)
    task = SearchTask(known.name, tuple(known.labels), tuple(known.positive))
    search = Search(store, space, options, task, first.evaluate.threshold)
    search.candidates.check_values()
    epochs = max(
        *(recipe.train.epochs for recipe in recipes),
        *(e for d in space.dimensions if d.key == "train.epochs" for e in d.ends),
        1,
    )
    open_study_of(search, epochs)
    search.study.remember("trials", space.trials)
    search.study.agree("task", task.to_document(), "task")
    search.study.agree("rule", first.evaluate.threshold, "rule of the threshold")
    return search


def run_search(
    store: Store,
    space: str | Path | Mapping[str, Any],
    *,
    name: str | None = None,
    data: Path | None = None,
    accept_near_duplicates: bool = False,
    trials: int | None = None,
    storage: str | None = None,
    overrides: Iterable[str] = (),
    workers: WorkerOptions = THIS_PROCESS,
) -> Search:
    """Run a search until it has its trials, and evaluate its front on the test images.

    `space` is a file or its content; `name` is by default that of the file. While other processes
    still run trials of it, the test images are not read. Errors as `prepare_search` and
    `open_executor`; `MissingRequirementError`, too, for a database that fails meanwhile.
    """
    if isinstance(space, Mapping):
        chosen = parse_space(space)
    else:
        chosen = read_space(Path(space))
        name = name or name_from_path(Path(space))
    if name is None:
        raise UsageError("a space without a file has no name; expected a name of the search.")
    chosen = override_space(chosen, overrides)
    if trials is not None:
        chosen = parse_space({**chosen.model_dump(mode="json"), "trials": trials})
    options = SearchOptions(name, data, accept_near_duplicates, storage)
    with reaching_database(storage or _own_url(search_folder(store, name))):
        search = prepare_search(store, chosen, options)
        with open_executor(store, workers) as executor:
            search.build_split()
            search.run(executor)
        if not search.study.is_running:
            search.results.finish()
    return search


def override_space(space: SearchSpace, overrides: Iterable[str]) -> SearchSpace:
    """Return the space with ``section.key=value`` overrides in its `set`.

    Raises `UsageError` for a key that varies.
    """
    document = space.model_dump(mode="json")
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise UsageError(f"override {override!r} is not section.key=value.")
        if key in space.vary:
            raise UsageError(f"--set {key} has no effect, because the space varies that key.")
        document["set"][key] = override_document({}, [f"value={text}"])["value"]
    return parse_space(document)


def open_search(store: Store, name: str | None, storage: str | None = None) -> Search:
    """Return an earlier search by its name, by default the last one of the workspace.

    Raises `UsageError` if there is none.
    """
    chosen = name or _find_last(store)
    known = list_searches(store)
    if storage is None and chosen not in known:
        raise UsageError(
            f"no search {chosen!r} in {store.workspace}; known are {', '.join(known) or 'none'}."
        )
    recorded = recall_study(storage or _own_url(search_folder(store, chosen)), chosen)
    if recorded is None:
        raise UsageError(f"the search {chosen!r} has not begun; run `lesiontk search SPACE.yaml`.")
    options = SearchOptions(chosen, storage=storage)
    search = Search(store, recorded.space, options, recorded.task, recorded.rule)
    open_study_of(search, epochs=1)
    return search


def list_searches(store: Store) -> tuple[str, ...]:
    """Return the names of the searches in a workspace."""
    folders = sorted((store.workspace / "searches").glob("*/study.db"))
    return tuple(file.parent.name for file in folders)


def search_folder(store: Store, name: str) -> Path:
    """Return the folder of a search: its database, result and page."""
    return store.workspace / "searches" / name


def open_study_of(search: Search, epochs: int) -> None:
    folder = _make_folder(search.store, search.options.name)
    url = search.options.storage or _own_url(folder)
    name = search.options.name
    search.study = open_study(
        url, name, search.space, search.criteria, folder / "locks", epochs=epochs
    )


def _make_folder(store: Store, name: str) -> Path:
    folder = search_folder(store, name)
    with store.hold("searches"):  # checks the workspace's own files, too
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _own_url(folder: Path) -> str:
    return f"sqlite:///{(folder / 'study.db').resolve()}"


def _find_last(store: Store) -> str:
    # what was written last may be in the log of SQLite alone, study.db-wal
    files = (store.workspace / "searches").glob("*/study.db*")
    last = max(files, key=lambda file: file.stat().st_mtime_ns, default=None)
    if last is None:
        raise UsageError(
            f"no search in {store.workspace}; `lesiontk search SPACE.yaml` begins one, `lesiontk "
            "search init` writes an example."
        )
    return last.parent.name
