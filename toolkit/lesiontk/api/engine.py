"""An engine: a converted model that a device runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesiontk.api.results import (
    Evaluation,
    InputChecks,
    Predictions,
    Profile,
    Robustness,
    Verification,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lesiontk.api.bundle import Bundle
    from lesiontk.api.lineage import Lineage
    from lesiontk.api.model import Model
    from lesiontk.api.workspace import Workspace
    from lesiontk.backends.engine_facts import EngineFacts
    from lesiontk.backends.tensorrt.build import BuiltFile
    from lesiontk.backends.tensorrt.check import CheckReport
    from lesiontk.records import Artefact, EngineSpec
    from lesiontk.workflow.choose_recipe import Settings

    Images = NDArray[np.uint8] | str | Path | Sequence[str | Path | NDArray[np.uint8]]


class Engine:
    """An engine of a workspace, or an external engine file, for which `artefact` is None.

    >>> engine = model.quantize()["tflite:int8"]
    >>> engine.target
    'tflite:int8'
    >>> engine.predict(picture).labels
    ('akiec', 'bcc', 'bkl', 'df', 'mel', 'nv', 'vasc')
    """

    def __init__(
        self, workspace: Workspace, reference: str, artefact: Artefact | None = None
    ) -> None:
        self.workspace = workspace
        self.reference = reference
        self.artefact = artefact

    @property
    def name(self) -> str:
        """The artefact's name, or the file's."""
        return self.artefact.name if self.artefact else Path(self.reference).name

    @property
    def file(self) -> Path:
        """The engine file, with labels, preprocessing and, after evaluation, its threshold.

        Raises `DataError` if it was changed since it was made.
        """
        from lesiontk.workflow.lineage import locate_engine

        return locate_engine(self.workspace.store, self.reference)

    @property
    def spec(self) -> EngineSpec:
        """Input, labels, preprocessing, task and split of the engine."""
        from lesiontk.backends import find_backend

        return find_backend(self.file)().read_spec(self.file)

    @property
    def target(self) -> str:
        """The back end and precision, such as ``tflite:int8``."""
        if self.artefact is not None:
            return self.record.target
        return f"{self.spec.backend}:{self.spec.precision}"

    @property
    def record(self) -> EngineFacts:
        """The conversion and verification. Raises `UsageError` for a file."""
        from lesiontk.backends.engine_facts import EngineFacts

        return self.require_artefact().read_facts(EngineFacts)

    @property
    def facts(self) -> Mapping[str, Any]:
        """The facts recorded at conversion; empty for an external file."""
        return self.artefact.facts if self.artefact else {}

    @property
    def model(self) -> Model:
        """The model that the engine was converted from. Raises `UsageError` for a file."""
        from lesiontk.api.model import Model
        from lesiontk.workflow.lineage import model_of

        return Model(self.workspace, model_of(self.workspace.store, self.require_artefact()))

    def lineage(self) -> Lineage:
        """Return the ancestors of the engine. Raises `UsageError` for a file."""
        return self.workspace.lineage(self.require_artefact().name)

    def profile(self, *, rounds: int = 20, threads: int = 1) -> Profile:
        """Measure the latency of each layer, under the names of the Keras model, slowest first.

        It is measured in a process of its own. Raises `UsageError` for a back end that does not
        tell, `MissingRequirementError` where the engine is emulated.
        """
        from lesiontk.bench.measure import measure_profile

        return Profile(measure_profile(self.file, rounds, threads))

    def predict(
        self, images: Images, *, threshold: float | None = None, skip_broken: bool = False
    ) -> Predictions:
        """Return class probabilities of images, and decisions at the engine's threshold.

        `images` is an image file, a decoded image (uint8 [H, W, 3] RGB of any size), a batch of
        these (uint8 [N, H, W, 3]), or a sequence of files and decoded images. They are cropped and
        resized as in training. `threshold` replaces the one frozen on validation. Raises
        `DataError` for an image that cannot be read; with `skip_broken` it is listed in
        `Predictions.failures` instead.
        """
        from lesiontk.errors import DataError
        from lesiontk.workflow.predict import predict_reference

        found = predict_reference(
            self.workspace.store, self.reference, _list_pictures(images), threshold
        )
        failures = found.failures
        if failures and not skip_broken:
            more = f" ({len(failures)} images in all)" if len(failures) > 1 else ""
            raise DataError(
                f"{failures[0].message}{more} `skip_broken=True` leaves out images that cannot "
                "be read."
            )
        return Predictions(found)

    def evaluate(
        self,
        images: str | Path | None = None,
        labels: str | Path | None = None,
        *,
        threshold: float | None = None,
        include_seen: bool = False,
        gates: Sequence[str] = (),
        out: str | Path | None = None,
        set: Settings = None,
    ) -> Evaluation:
        """Evaluate on the test split of the engine's model, or on a folder of labelled images.

        `labels` is a table beside `images`. Images that the engine was trained or validated on are
        left out and counted, unless `include_seen`. `gates` are tested if possible; see
        `Evaluation.check_gates`. `out` is a new engine file with these results. Raises `DataError`
        if a diagnosis is not in the engine's task or too many images are broken.
        """
        from lesiontk.workflow.choose_recipe import list_overrides
        from lesiontk.workflow.evaluate import (
            check_export,
            evaluate_reference,
            export_engine,
            rules_from,
        )

        store, folder = self.workspace.store, None if images is None else Path(images)
        if out is not None:
            check_export(store, self.reference, folder, Path(out))
        overrides = list_overrides(set)
        record = evaluate_reference(
            store,
            self.reference,
            folder,
            None if labels is None else Path(labels),
            overrides,
            include_seen=include_seen,
            threshold=threshold,
            gates=gates,
        )
        if out is not None:
            export_engine(store, self.reference, Path(out))
        return Evaluation(record, rules_from(overrides).unresolved)

    def verify(self) -> Verification:
        """Check the files of the engine and its ancestors, and its outputs against its model's.

        Raises `GateFailedError` if a file was changed or the outputs differ by more than the recipe
        permits, `UsageError` for an external file.
        """
        return self.workspace.verify(self.require_artefact().name)

    def fit_input_checks(
        self, *, quality_rate: float = 0.01, domain_rate: float = 0.02
    ) -> InputChecks:
        """Fit checks of image quality and of the domain on the engine's own outputs.

        `quality_rate` is the share of training images beyond the quality bounds, `domain_rate` that
        of validation images refused as out of domain. Raises `UsageError` for a file, and for a
        back end that cannot return features.
        """
        from lesiontk.stages.input_checks import InputChecksConfig, read_input_checks
        from lesiontk.workflow.input_checks import fit_input_checks

        config = InputChecksConfig(quality_rate=quality_rate, domain_rate=domain_rate)
        made = fit_input_checks(self.workspace.store, self.require_artefact(), config)
        record = read_input_checks(made)
        return InputChecks(made, record, record.classes)

    def robustness(
        self,
        *,
        images: int | None = None,
        corruptions: Sequence[str] = (),
        data: str | Path | None = None,
        set: Settings = None,
    ) -> Robustness:
        """Compare the engine with its full-precision parent on corrupted test images.

        `images` is the number of test images, balanced over the classes (default: the recipe's,
        else 300), `corruptions` are some of hair, blur, jpeg, lighting, colour and rotation
        (default: all), each at three severities. `data` is the folder of the images, by default
        that of the training. Raises `UsageError` for an engine without a parent, `DataError` if the
        images are gone or others.
        """
        from lesiontk.stages.robustness import read_robustness
        from lesiontk.workflow.choose_recipe import list_overrides
        from lesiontk.workflow.robustness import measure_robustness

        made = measure_robustness(
            self.workspace.store,
            self.require_artefact(),
            list_overrides(set),
            images=images,
            corruptions=corruptions,
            data=None if data is None else Path(data),
        )
        record = read_robustness(made)
        return Robustness(made, record, record.results)

    def bundle(
        self,
        target: str,
        out: str | Path | None = None,
        *,
        threshold: float | None = None,
        research_override: bool = False,
        runtime: str | Path | None = None,
    ) -> Bundle:
        """Write the folder that runs the engine on a device; see `Workspace.bundle`."""
        return self.workspace.bundle(
            self,
            target,
            out,
            threshold=threshold,
            research_override=research_override,
            runtime=runtime,
        )

    def check_tensorrt(self, *versions: str, target: str | None = None) -> CheckReport:
        """Check whether TensorRT accepts an ONNX engine; the report lists unsupported nodes.

        `versions` are those of TensorRT, such as ``"8.5.2"``; `target` is a Jetson, such as
        ``"jetson-orin-jetpack6"``. Default: those of JetPack 5, 6 and the latest. Raises
        `UsageError` for an engine that is not an ONNX file.
        """
        from lesiontk.backends.tensorrt.check import check_model, choose_versions
        from lesiontk.workflow.lineage import locate_onnx

        chosen = choose_versions(versions, target)
        return check_model(locate_onnx(self.workspace.store, self.reference), chosen)

    def build(
        self,
        out: str | Path | None = None,
        *,
        batches: tuple[int, int, int] = (1, 1, 1),
        workspace_limit: int = 1024,
        timing_cache: str | Path | None = None,
        capabilities: Sequence[str] = (),
    ) -> BuiltFile:
        """Build the TensorRT plan of an ONNX engine, and return its description.

        `out` is by default the engine's name with ``.plan``, in the current folder. `batches` are
        the minimum, optimum and maximum batch size, `workspace_limit` is in MiB, `capabilities` are
        compute capabilities such as ``"sm_86"``. Raises `MissingRequirementError` without TensorRT
        or its driver.
        """
        from lesiontk.backends.tensorrt.build import BuildSettings, build_file

        cache = None if timing_cache is None else Path(timing_cache)
        built_for = tuple(name.upper().replace("_", "") for name in capabilities)
        settings = BuildSettings(batches, workspace_limit << 20, cache, built_for)
        engine = self.file
        path = Path(f"{engine.stem}.plan") if out is None else Path(out)
        with self.workspace.store.progress.task(f"building {path.name}", None):
            return build_file(engine, path, settings)

    def require_artefact(self) -> Artefact:
        """Return the artefact. Raises `UsageError` for an engine file outside the workspace."""
        from lesiontk.errors import UsageError

        if self.artefact is None:
            raise UsageError(
                f"{self.reference} is a file outside the workspace; expected an engine of it "
                "(`ws.ls('engine')` lists them)."
            )
        return self.artefact

    def __repr__(self) -> str:
        return f"<Engine {self.name} ({self.target})>"

    def _repr_html_(self) -> str:
        from lesiontk.api.engines import Engines

        return Engines({self.target: self})._repr_html_()


def _list_pictures(images: Images) -> list[Path | NDArray[np.uint8]]:
    """Return files and arrays [H, W, 3], one for each image."""
    import numpy as np

    if isinstance(images, str | Path):
        return [Path(images)]
    if isinstance(images, np.ndarray):
        return [images] if images.ndim == 3 else list(images)
    return [Path(image) if isinstance(image, str) else image for image in images]
