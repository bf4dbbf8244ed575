"""A workspace: the folder of artefacts, and all operations on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesiontk.api.benchmark import Benchmark
from lesiontk.api.bundle import Bundle
from lesiontk.api.cross_validation import CrossValidation
from lesiontk.api.data_workspace import DataWorkspace, RecipeLike
from lesiontk.api.engine import Engine
from lesiontk.api.findings import table_of
from lesiontk.api.lineage import Lineage
from lesiontk.api.model import Model
from lesiontk.api.report import Report
from lesiontk.api.results import Verification
from lesiontk.api.run import Run
from lesiontk.api.search import Search
from lesiontk.api.seeds import SeedComparison
from lesiontk.api.side_by_side import SideBySide
from lesiontk.api.stored import Stored, refer_to
from lesiontk.workflow.choose_recipe import Settings, list_overrides, with_folds, with_gates

if TYPE_CHECKING:
    import pandas as pd


class Workspace(DataWorkspace):
    """A folder of artefacts: models, engines, benchmarks and their ancestors.

    An artefact with the same inputs is reused: a repeated call returns at once, and an interrupted
    one continues. `path` defaults to the environment's ``LESIONTK_WORKSPACE`` or
    ``./lesiontk-workspace``; it is created at the first write. With ``progress=False`` no bars are
    shown. `track` is a tracker such as ``mlflow``, by default the environment's ``LESIONTK_TRACK``:
    it records trainings, engines, benchmarks and searches. An empty text is none.

    `shared` is the URL of a store that several machines use, such as ``s3://bucket/prefix`` or
    ``file:///mnt/share`` (default: the environment's ``LESIONTK_SHARED``, else none). What it has
    is fetched and not made again, what is made is copied there with its ancestors, also the
    prepared images. Raises `UsageError` for another form of URL and `MissingRequirementError`
    without the package for it; the first step raises it if the store cannot be reached.

    >>> ws = lesiontk.Workspace("lesions")
    >>> ws
    <Workspace lesions>
    """

    def __repr__(self) -> str:
        return f"<Workspace {self.path}>"

    # ---------------------------------------------------------------- artefacts

    def model(self, reference: str | Path = "latest") -> Model:
        """Return a model: ``latest``, ``latest:RECIPE``, a name, the beginning of a key or a path.

        Raises `UsageError` if none or several match.
        """
        return Model(self, self.store.resolve(str(reference), "model"))

    def engine(self, reference: str | Path = "latest") -> Engine:
        """Return an engine of the workspace, or an external engine file by its path."""
        from lesiontk.backends import is_engine_file

        text = str(reference)
        if is_engine_file(text):
            engine = Engine(self, text)
            engine.file  # noqa: B018 - raises if it is missing or changed
            return engine
        artefact = self.store.resolve(text, "engine")
        return Engine(self, artefact.name, artefact)

    def ls(self, kind: str | None = None, *, remote: bool = False) -> pd.DataFrame:
        """List artefacts, last used first: name, kind, recipe, what, bytes, created and path.

        `kind` is for example ``model`` or ``engine``. With `remote` they are those of the shared
        store, last made first. Raises `UsageError` for another kind, with the known ones.
        """
        from lesiontk.workflow.listing import list_workspace

        rows = list_workspace(self.store, kind, remote=remote)
        return table_of([row.to_document() for row in rows])

    def failures(self) -> pd.DataFrame:
        """Return the failures in this workspace: kind, error."""
        return table_of([{"kind": f.kind, "error": f.error} for f in self.store.failures()])

    def lineage(self, reference: str | Path | Stored | None = None) -> Lineage:
        """Return the ancestors of an artefact (default: the latest model), back to the images."""
        if reference is None:
            return Lineage(self.store.lineage(self.store.resolve("latest", "model")))
        return Lineage(self.store.lineage(self.store.resolve(refer_to(reference))))

    def verify(self, reference: str | Path | Stored | None = None) -> Verification:
        """Check an artefact and its ancestors, or all artefacts and the latest model's engines.

        Raises `GateFailedError` if a file was changed or an engine's outputs differ from its
        model's by more than the recipe permits.
        """
        from lesiontk.workflow.verify import verify_artefact, verify_workspace

        if reference is None:
            return Verification(verify_workspace(self.store))
        return Verification(verify_artefact(self.store, self.store.resolve(refer_to(reference))))

    # ---------------------------------------------------------------- models

    def train(
        self,
        recipe: RecipeLike = "demo",
        *,
        data: str | Path | None = None,
        weights: str | None = None,
        accept_near_duplicates: bool = False,
        allow_leaky_split: bool = False,
        restart: bool = False,
        set: Settings = None,
    ) -> Model:
        """Train a recipe's model, including its compressions.

        `data` is the folder of the images and their table, `weights` is ``imagenet``, ``none`` or a
        file. An unfinished training continues; with `restart` it starts again. Raises `UsageError`
        for an unknown key and `DataError` for images that cannot be used.
        """
        from lesiontk.workflow.train import train_recipe

        chosen = self._choose(
            recipe,
            data=data,
            weights=weights,
            accept_near_duplicates=accept_near_duplicates,
            allow_leaky_split=allow_leaky_split,
            set=set,
        )
        return Model(self, train_recipe(self.store, chosen, restart=restart))

    def compare_seeds(
        self,
        recipe: RecipeLike = "demo",
        *,
        seeds: int = 3,
        data: str | Path | None = None,
        weights: str | None = None,
        accept_near_duplicates: bool = False,
        allow_leaky_split: bool = False,
        restart: bool = False,
        set: Settings = None,
    ) -> SeedComparison:
        """Train a recipe with several seeds on one split, and compare them on validation.

        The seeds are `seeds` numbers from ``train.seed`` on. `SeedComparison.best` is the model
        with the highest balanced accuracy; no test image is read. The other arguments are those of
        `train`.
        """
        from lesiontk.workflow.seeds import compare_seeds

        chosen = self._choose(
            recipe,
            data=data,
            weights=weights,
            accept_near_duplicates=accept_near_duplicates,
            allow_leaky_split=allow_leaky_split,
            set=set,
        )
        return SeedComparison(self, compare_seeds(self.store, chosen, seeds, restart=restart))

    def import_model(
        self,
        model: str | Path,
        *,
        data: str | Path | None = None,
        task: str | None = None,
        recipe: str | None = None,
        pixels: str = "0..255",
        labels: Sequence[str] = (),
        set: Settings = None,
    ) -> Model:
        """Import a Keras model trained elsewhere: ``.keras``, HDF5 or a SavedModel.

        `data` are the images of its training, or similar ones. `pixels` is the input range of its
        training: ``0..255``, ``0..1``, ``-1..1``, ``caffe`` or ``imagenet``. `labels` are in the
        order of its outputs. With `recipe` it becomes that recipe's model. Raises `DataError` with
        the name of an unsupported layer.
        """
        from lesiontk.workflow.train import import_file

        made = import_file(
            self.store,
            Path(model),
            data=None if data is None else Path(data),
            task=task,
            pixels=pixels,
            labels=labels,
            recipe=recipe,
            overrides=list_overrides(set),
        )
        return Model(self, made)

    def fit_encoder(
        self,
        encoder: str | Path,
        *,
        recipe: RecipeLike = "demo",
        image_size: int = 224,
        pixels: str = "imagenet",
        output: str = "",
        pooling: str = "auto",
        views: int = 4,
        augment: str = "dermoscopy",
        pretraining: str = "unknown",
        has_not_seen_test: bool = False,
        data: str | Path | None = None,
        accept_near_duplicates: bool = False,
        allow_leaky_split: bool = False,
        set: Settings = None,
    ) -> Path:
        """Return the engine file of a linear classifier on the features of an ONNX image encoder.

        It is a teacher for `Model.distill`. `image_size` and `pixels` are those of its input,
        `output` is a tensor of the graph (default: its only output), `pooling` is ``none``,
        ``class``, ``mean`` or ``class_mean``. Each training image is seen in `views` views, all but
        the first changed by the augmentation `augment`. `pretraining` names the images that the
        encoder was pretrained on; unless `has_not_seen_test`, students are marked.
        """
        from lesiontk.backends.reference_outputs import engine_file
        from lesiontk.workflow.encode import fit_encoder

        made = fit_encoder(
            self.store,
            self._choose(
                recipe,
                data=data,
                accept_near_duplicates=accept_near_duplicates,
                allow_leaky_split=allow_leaky_split,
                set=set,
            ),
            Path(encoder),
            pretraining=pretraining,
            has_not_seen_test=has_not_seen_test,
            image_size=image_size,
            pixels=pixels,
            output=output,
            pooling=pooling,
            views=views,
            augment=augment,
        )
        return engine_file(made)

    # ---------------------------------------------------------------- whole runs

    def run(
        self,
        recipe: RecipeLike,
        *,
        data: str | Path | None = None,
        weights: str | None = None,
        accept_near_duplicates: bool = False,
        allow_leaky_split: bool = False,
        gates: Sequence[str] = (),
        workers: str = "local",
        ray_address: str | None = None,
        set: Settings = None,
    ) -> Run:
        """Run a recipe from images to report. `Run.benchmark` contains the verdicts of its
        gates. `workers` and `ray_address` are as in `search`."""
        (done,) = self.run_all(
            [recipe],
            data=data,
            weights=weights,
            accept_near_duplicates=accept_near_duplicates,
            allow_leaky_split=allow_leaky_split,
            gates=gates,
            workers=workers,
            ray_address=ray_address,
            set=set,
        )
        return done

    def run_all(
        self,
        recipes: Sequence[RecipeLike],
        *,
        data: str | Path | None = None,
        weights: str | None = None,
        accept_near_duplicates: bool = False,
        allow_leaky_split: bool = False,
        gates: Sequence[str] = (),
        workers: str = "local",
        ray_address: str | None = None,
        parallel: int | None = None,
        set: Settings = None,
    ) -> tuple[Run, ...]:
        """Run several recipes from images to report, and return their results in this order.

        `workers`, `ray_address` and `parallel` are as in `search`: with Ray several recipes run at
        once. One that fails does not end the others; its error is raised when they are done.
        """
        from lesiontk.workflow.executor import WorkerOptions, open_executor
        from lesiontk.workflow.run_recipes import check_whole, run_recipes

        chosen = [
            self._choose(
                recipe,
                data=data,
                weights=weights,
                accept_near_duplicates=accept_near_duplicates,
                allow_leaky_split=allow_leaky_split,
                gates=gates,
                set=set,
            )
            for recipe in recipes
        ]
        check_whole(chosen)
        with open_executor(self.store, WorkerOptions(workers, ray_address, parallel)) as executor:
            runs = run_recipes(self.store, chosen, executor)
        for run in runs:
            if run.error is not None:
                raise run.error
        return tuple(Run(self, run.artefacts) for run in runs)

    def cross_validate(
        self,
        recipe: RecipeLike,
        *,
        folds: int | None = None,
        data: str | Path | None = None,
        weights: str | None = None,
        accept_near_duplicates: bool = False,
        workers: str = "local",
        ray_address: str | None = None,
        parallel: int | None = None,
        set: Settings = None,
    ) -> CrossValidation:
        """Train, convert and evaluate a recipe in every fold, and return the results together.

        Lesions are dealt into `folds` folds (default: the recipe's ``data.split.folds``); every
        image is tested once. Finished steps are reused: an interrupted call continues. With
        `workers` ``ray``, `parallel` folds are made at once, as in `search`. Raises
        `UsageError` for a recipe that cannot be cross-validated, `DataError` if a class has too few
        lesions.
        """
        from lesiontk.workflow.cross_validation import cross_validate
        from lesiontk.workflow.executor import WorkerOptions, open_executor

        chosen = self._choose(
            recipe,
            data=data,
            weights=weights,
            accept_near_duplicates=accept_near_duplicates,
            set=with_folds(set, folds),
        )
        with open_executor(self.store, WorkerOptions(workers, ray_address, parallel)) as executor:
            return CrossValidation(cross_validate(self.store, chosen, executor))

    def search(
        self,
        space: str | Path | Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        data: str | Path | None = None,
        accept_near_duplicates: bool = False,
        trials: int | None = None,
        storage: str | None = None,
        workers: str = "local",
        ray_address: str | None = None,
        parallel: int | None = None,
        set: Settings = None,
    ) -> Search:
        """Search a space of recipes for the best engines, and evaluate the front on the test split.

        `space` is a YAML file (`write_search_space` writes an example) or its content. `name` is by
        default that of the file. A repeated call continues, with more `trials` too; several
        processes may run one search. Without `space` an earlier search is returned as it is, by
        default the last one. `storage` is the URL of a database that several machines share.

        With `workers` ``ray``, `parallel` trials run at once (default: one for two cores), on this
        machine or on the cluster at `ray_address`, ``HOST:PORT`` or ``auto``.

        Raises `UsageError` for a space that cannot be searched, and `MissingRequirementError` for a
        cluster that cannot be reached, before any work.
        """
        from lesiontk.workflow.executor import WorkerOptions
        from lesiontk.workflow.search import open_search, run_search

        if space is None:
            found = open_search(self.store, name, storage)
            return Search(self, found.results.write_result(), found.results.page)
        done = run_search(
            self.store,
            space,
            name=name,
            data=None if data is None else Path(data),
            accept_near_duplicates=accept_near_duplicates,
            trials=trials,
            storage=storage,
            overrides=list_overrides(set),
            workers=WorkerOptions(workers, ray_address, parallel),
        )
        return Search(self, done.results.write_result(), done.results.page)

    def write_search_space(self, file: str | Path = "space.yaml") -> Path:
        """Write a commented example of a search space to a new file, and return its path."""
        from lesiontk.workflow.new_search import write_space

        return write_space(Path(file))

    def plan(
        self,
        recipe: RecipeLike,
        *,
        data: str | Path | None = None,
        weights: str | None = None,
        gates: Sequence[str] = (),
        set: Settings = None,
    ) -> pd.DataFrame:
        """Check a recipe and return the steps of `run`, without running them."""
        from lesiontk.workflow.train import plan_run

        chosen = self._choose(recipe, data=data, weights=weights, gates=gates, set=set)
        return table_of([step.to_document() for step in plan_run(self.store, chosen).steps])

    def bench(
        self,
        *engines: str | Path | Engine,
        model: str | Path | Model = "latest",
        fresh: bool = False,
        gates: Sequence[str] = (),
        images: str | Path | None = None,
        labels: Sequence[str] = (),
        pixels: str = "0..255",
        devices: Sequence[str | Path] = (),
        target: str | None = None,
        device: str | None = None,
        install: bool = False,
        set: Settings = None,
    ) -> Benchmark:
        """Measure latency, size, memory and accuracy of engines against their parent.

        Without `engines`: those of `model` in the workspace. Engine files, also of other tools, are
        evaluated on labelled `images` if given; `labels` and `pixels` describe a file that lesiontk
        did not write. `gates` replace the recipe's. With `fresh`, latency is measured again even if
        an equal benchmark exists. `devices` are files of ``run.py bench --json`` in bundles of the
        engines: gates on latency and memory are decided by these measurements. `target` is a
        machine that is measured now, ``ssh://USER@HOST`` or ``adb://SERIAL``, as the bundle target
        `device` (default: that of its processor); with `install` the bundle's requirements are
        installed there for the measurement.
        """
        from lesiontk.backends import is_engine_file
        from lesiontk.backends.foreign import ForeignDescription
        from lesiontk.errors import UsageError
        from lesiontk.stages.remote_timing import RemoteDevice
        from lesiontk.workflow.benchmark import benchmark_engine_files, benchmark_references

        references = [e.reference if isinstance(e, Engine) else str(e) for e in engines]
        overrides = with_gates(set, gates)
        measurements = [Path(path) for path in devices]
        if target is None and (device is not None or install):
            raise UsageError("device and install are for a measurement elsewhere; expected target.")
        remote = None if target is None else RemoteDevice(target, device, install)
        if any(is_engine_file(reference) for reference in references):
            foreign = ForeignDescription(tuple(labels), pixels)
            folder = None if images is None else Path(images)
            return Benchmark(
                benchmark_engine_files(
                    self.store, references, overrides, foreign, folder, measurements, remote
                )
            )
        if labels or images:
            raise UsageError("labels and images are for engine files; expected paths of these.")
        record, artefact = benchmark_references(
            self.store,
            references,
            refer_to(model),
            overrides,
            fresh=fresh,
            measurements=measurements,
            remote=remote,
        )
        return Benchmark(record, artefact)

    def report(
        self,
        model: str | Path | Model = "latest",
        *,
        gates: Sequence[str] = (),
        set: Settings = None,
    ) -> Report:
        """Write one HTML file about a model and its engines."""
        from lesiontk.workflow.benchmark import report_model

        artefact = self.store.resolve(refer_to(model), "model")
        return Report(self, report_model(self.store, artefact, with_gates(set, gates)))

    def compare(self, a: str | Path | Stored, b: str | Path | Stored) -> SideBySide:
        """Compare two benchmarks side by side: their engines of the same target.

        Each is a benchmark, a report, a model, or ``latest:RECIPE``. On the same test images the
        differences are paired by lesion, on others they are those of two samples.
        """
        from lesiontk.workflow.compare_benchmarks import compare_references

        return SideBySide(compare_references(self.store, refer_to(a), refer_to(b)))

    def bundle(
        self,
        engine: str | Path | Engine | Model = "latest",
        target: str = "linux-arm64",
        out: str | Path | None = None,
        *,
        threshold: float | None = None,
        research_override: bool = False,
        sign: str | Path | None = None,
        archive: str | Path | None = None,
        runtime: str | Path | None = None,
    ) -> Bundle:
        """Write the folder that runs an engine, or a model's preferred one, on a device.

        Its predictions and decisions are those of the workspace, and it contains a self-test.
        `target` is a device such as ``linux-arm64``, ``web`` or ``jetson-orin-jetpack6``; the
        folder is copied to `out`, which an engine file requires. `threshold` replaces the one
        frozen on validation. Raises `GateFailedError` for an engine that did not pass its recipe's
        gates, or whose gates are not known; with `research_override` it is bundled, and that is
        shown wherever the bundle runs. The copy at `out` is signed with the Ed25519 private key in
        the PEM file `sign`; `archive` is a new ``.tar.gz`` of that copy. `runtime` is a folder with
        the archives of LiteRT.js, for ``web`` without npm or network.
        """
        from lesiontk.workflow.bundle import bundle_reference

        reference = engine.reference if isinstance(engine, Engine) else refer_to(engine)
        folder, facts = bundle_reference(
            self.store,
            reference,
            target,
            None if out is None else Path(out),
            threshold,
            research_override=research_override,
            sign=None if sign is None else Path(sign),
            archive=None if archive is None else Path(archive),
            runtime=None if runtime is None else Path(runtime),
        )
        return Bundle(folder, facts)
