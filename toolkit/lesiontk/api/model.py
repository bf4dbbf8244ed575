"""A model of a workspace: trained, imported, or made from another by a compression."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from lesiontk.api.engine import Engine
from lesiontk.api.engines import Engines
from lesiontk.api.findings import show_table, table_of
from lesiontk.api.results import Sensitivity, Stability
from lesiontk.api.stored import Stored, refer_to
from lesiontk.workflow.choose_recipe import list_overrides, locate_file

if TYPE_CHECKING:
    import pandas as pd

    from lesiontk.api.benchmark import Benchmark
    from lesiontk.api.bundle import Bundle
    from lesiontk.api.report import Report
    from lesiontk.api.results import Verification
    from lesiontk.api.workspace import Workspace
    from lesiontk.records import Artefact, ModelFacts, ValidationScores
    from lesiontk.workflow.choose_recipe import Settings


class Model(Stored):
    """A model in Keras. Compressions return a new model and do not change this one.

    Each compression accepts the keys of the recipe section of its name, such as
    ``model.prune(keep_macs=0.5, recover={"epochs": 4})``. All raise `UsageError` for an unknown key
    or an invalid order of compressions, `DataError` for an unsupported model.

    >>> model.labels
    ('akiec', 'bcc', 'bkl', 'df', 'mel', 'nv', 'vasc')
    >>> model.validation.n > 0
    True
    """

    workspace: Workspace

    def __init__(self, workspace: Workspace, artefact: Artefact) -> None:
        super().__init__(workspace, artefact)

    @property
    def record(self) -> ModelFacts:
        """Every fact by name, with the history of its ancestors."""
        from lesiontk.records import ModelFacts

        return self.artefact.read_facts(ModelFacts)

    @property
    def architecture(self) -> str:
        """The architecture, and the compressions since training, such as ``cnn + prune``."""
        from lesiontk.workflow.lineage import describe_derivation

        return describe_derivation(self.artefact)

    @property
    def parameters(self) -> int:
        """The number of its parameters."""
        return self.record.parameters

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of its outputs."""
        return self.record.labels

    @property
    def validation(self) -> ValidationScores:
        """Its `metrics` on the validation images, and their number `n`."""
        return self.record.validation

    @property
    def file(self) -> Path:
        """The ``.keras`` file."""
        from lesiontk.records import MODEL_FILE

        return self.artefact.file(MODEL_FILE)

    def curves(self) -> pd.DataFrame:
        """Return a row for each epoch of its training."""
        import pandas as pd

        return pd.read_csv(self.artefact.file("curves.csv"))

    # ---------------------------------------------------------------- compression

    def compress(self, technique: str, *, data: str | Path | None = None, **keys: Any) -> Model:
        """Return the model that a compression makes from this one.

        `technique` is the name of any registered technique, including plugins, and `keys` are those
        of its section in a recipe. `data` is the folder of the images, if it has moved.
        """
        from lesiontk.workflow.compress import compress_model

        made = compress_model(
            self.workspace.store,
            self.artefact,
            technique,
            {},
            list_overrides({key: locate_file(value) for key, value in keys.items()}),
            data=None if data is None else Path(data),
        )
        return Model(self.workspace, made)

    def __getattr__(self, name: str) -> Callable[..., Model]:
        """Return `compress` for a technique of this name, such as one of a plugin."""
        from lesiontk.technique import TECHNIQUES

        if name.startswith("_") or name not in TECHNIQUES:
            raise AttributeError(f"a Model has no attribute {name!r}")
        return partial(self.compress, name)

    def prune(
        self,
        *,
        keep_macs: float | None = None,
        keep_parameters: float | None = None,
        keep_latency: float | None = None,
        criterion: str | None = None,
        iterations: int | None = None,
        **keys: Any,
    ) -> Model:
        """Return a smaller model: its least important channels are removed, and it is fine-tuned.

        Exactly one of `keep_macs`, `keep_parameters` and `keep_latency` is the share that may
        stay, between 0 and 1; it counts multiply-adds, parameters or milliseconds.

        >>> pruned = model.prune(keep_macs=0.5, multiple=4, recover={"epochs": 1})
        >>> pruned.architecture == f"{model.architecture} + prune"
        True
        >>> pruned.parameters < model.parameters
        True
        """
        given = {
            "keep_macs": keep_macs,
            "keep_parameters": keep_parameters,
            "keep_latency": keep_latency,
            "criterion": criterion,
            "iterations": iterations,
        }
        return self.compress("prune", **_given(given), **keys)

    def prune_blocks(
        self,
        *,
        keep_macs: float | None = None,
        keep_parameters: float | None = None,
        keep_latency: float | None = None,
        **keys: Any,
    ) -> Model:
        """Return a shallower model: its least important residual blocks are removed, and it is
        fine-tuned.

        Exactly one of `keep_macs`, `keep_parameters` and `keep_latency` is the share that may
        stay, as for `prune`. Raises `DataError` for a network without residual blocks.
        """
        given = {
            "keep_macs": keep_macs,
            "keep_parameters": keep_parameters,
            "keep_latency": keep_latency,
        }
        return self.compress("prune_blocks", **_given(given), **keys)

    def sparsify(
        self, *, sparsity: float | None = None, pattern: str | None = None, **keys: Any
    ) -> Model:
        """Return the model with its smallest weights set to zero, fine-tuned.

        `sparsity` is the share of zeros, 0.75 by default; `pattern` is ``unstructured`` (default),
        ``2:4`` or ``block``. The compressed file is smaller; few runtimes are faster with it.
        """
        return self.compress(
            "sparsify", **_given({"sparsity": sparsity, "pattern": pattern}), **keys
        )

    def cluster(self, *, clusters: int | None = None, **keys: Any) -> Model:
        """Return the model with at most `clusters` values (32 by default) in each kernel."""
        return self.compress("cluster", **_given({"clusters": clusters}), **keys)

    def equalize(self, **keys: Any) -> Model:
        """Return the model with its weight ranges equalized across layers, for int8."""
        return self.compress("equalize", **keys)

    def resize(self, *, image_size: int, data: str | Path | None = None, **keys: Any) -> Model:
        """Return the model retrained for images of `image_size` pixels a side.

        `data` is the folder of the images, if it has moved.
        """
        return self.compress("resize", data=data, image_size=image_size, **keys)

    def distill(
        self,
        *,
        teacher: str | Path | Model | Engine | Sequence[str | Path | Model | Engine],
        temperature: float | None = None,
        weight: float | None = None,
        views: str | None = None,
        teacher_views: int | None = None,
        losses: Sequence[str] | None = None,
        **keys: Any,
    ) -> Model:
        """Return the model trained further on a teacher's soft targets.

        `teacher` is an engine file, or a model or engine of the workspace, of the same split, or a
        sequence of them, whose mean prediction is the target; architecture and image size may
        differ. `weight` is that of the soft targets against the labels, between 0 and 1. With
        ``views="augmented"`` the teacher predicts each augmented image; `teacher_views` is 1, 4 or
        8 mirrored and rotated views whose mean it predicts. `losses` are those between pooled
        features, ``feature`` or ``relational``, each with a weight: ``feature:0.5``.
        """
        several = [teacher] if isinstance(teacher, str | Path | Stored | Engine) else teacher
        reference = [t.reference if isinstance(t, Engine) else refer_to(t) for t in several]
        given = {
            "temperature": temperature,
            "weight": weight,
            "views": views,
            "teacher_views": teacher_views,
            "losses": losses,
        }
        return self.compress("distill", teacher=reference, **_given(given), **keys)

    def qat(self, *, scheme: str | None = None, epochs: int | None = None, **keys: Any) -> Model:
        """Return the model after quantization-aware training.

        `scheme` is ``tflite`` (default; for ONNX too) or ``tensorrt``; `epochs` are those of its
        training.
        """
        train = {**keys.pop("train", {}), **_given({"epochs": epochs})}
        given = {**_given({"scheme": scheme}), **({"train": train} if train else {})}
        return self.compress("qat", **given, **keys)

    def load_weights(self, file: str | Path, **keys: Any) -> Model:
        """Return the model with the weights of `file`: its own ``.keras``, trained elsewhere."""
        return self.compress("load_weights", file=str(Path(file).resolve()), **keys)

    # ---------------------------------------------------------------- engines

    @property
    def engines(self) -> Engines:
        """The engines that the workspace has of this model."""
        from lesiontk.workflow.lineage import engines_of

        return self._engines(engines_of(self.workspace.store, self.artefact))

    def quantize(
        self,
        *precisions: str,
        reduce_range: bool = False,
        set: Settings = None,
    ) -> Engines:
        """Return the int8 engines of every back end that runs here, verified against the model.

        `precisions` are ``int8`` (default) and ``mixed``, which keeps the most sensitive layers in
        float. `reduce_range` selects 7-bit weights for x86 CPUs without VNNI. A back end without an
        int8 form of an operator is in `Engines.refused`.

        Raises `GateFailedError` if an engine's outputs differ from the model's by more than the
        recipe permits, and the first refusal if no engine was made.

        >>> sorted(model.quantize())
        ['onnx:int8', 'tflite:int8']
        """
        from lesiontk.workflow.convert import find_fault, quantize_model

        overrides = list_overrides(set)
        if reduce_range:
            overrides = (*overrides, "quantize.reduce_range=true")
        made, refused = quantize_model(
            self.workspace.store, self.artefact, precisions or ("int8",), overrides
        )
        if (fault := find_fault(made, refused)) is not None:
            raise fault
        return Engines(self._engines(made), refused)

    @overload
    def convert(self, target: str, /, *, set: Settings = None) -> Engine: ...

    @overload
    def convert(self, target: str, second: str, /, *more: str, set: Settings = None) -> Engines: ...

    def convert(self, *targets: str, set: Settings = None) -> Engine | Engines:
        """Return the engine of a target such as ``"tensorrt:int8"``, or the engines of several
        targets.

        Each is verified against the model. Raises `GateFailedError` if it differs by more than the
        recipe permits, `DataError` for a model that the target does not support.
        """
        from lesiontk.workflow.convert import convert_model

        made = convert_model(self.workspace.store, self.artefact, targets, list_overrides(set))
        engines = self._engines(made)
        return engines[targets[0]] if len(targets) == 1 else engines

    def _engines(self, made: Mapping[str, Any]) -> Engines:
        return Engines({t: Engine(self.workspace, a.name, a) for t, a in made.items()})

    # ---------------------------------------------------------------- measurements

    def sensitivity(self, backend: str = "tflite", *, set: Settings = None) -> Sensitivity:
        """Measure the effect of int8 on each layer alone, and which must stay in float for the
        gate.

        `backend` is one that has the precision ``mixed``.
        """
        from lesiontk.compress.sensitivity import Sensitivity as Record
        from lesiontk.stages.sensitivity import rank_layers
        from lesiontk.workflow.convert import measure_sensitivity

        made = measure_sensitivity(
            self.workspace.store, self.artefact, backend, list_overrides(set)
        )
        return Sensitivity(made, made.read_facts(Record), rank_layers(made))

    def stability(
        self,
        target: str = "tflite:int8",
        *,
        draws: int = 3,
        set: Settings = None,
    ) -> Stability:
        """Make an int8 engine from further calibration draws and compare each with the recipe's."""
        from lesiontk.calibration.stability import Stability as Record
        from lesiontk.stages.stability import read_draws
        from lesiontk.workflow.convert import measure_stability

        made = measure_stability(
            self.workspace.store, self.artefact, target, draws, list_overrides(set)
        )
        return Stability(made, made.read_facts(Record), read_draws(made))

    def bench(
        self,
        *,
        fresh: bool = False,
        gates: Sequence[str] = (),
        set: Settings = None,
    ) -> Benchmark:
        """Measure this model's engines against their parent; see `Workspace.bench`."""
        return self.workspace.bench(model=self, fresh=fresh, gates=gates, set=set)

    def report(self, *, gates: Sequence[str] = (), set: Settings = None) -> Report:
        """Write one HTML file about this model and its engines."""
        return self.workspace.report(self, gates=gates, set=set)

    def verify(self) -> Verification:
        """Check the files of this model and its ancestors. Raises `GateFailedError` for a changed
        one."""
        return self.workspace.verify(self)

    def bundle(
        self,
        target: str,
        out: str | Path | None = None,
        *,
        threshold: float | None = None,
        research_override: bool = False,
        runtime: str | Path | None = None,
    ) -> Bundle:
        """Write the folder that runs this model's preferred engine; see `Workspace.bundle`."""
        return self.workspace.bundle(
            self,
            target,
            out,
            threshold=threshold,
            research_override=research_override,
            runtime=runtime,
        )

    def __repr__(self) -> str:
        return f"<Model {self.name} ({self.architecture}, {self.parameters:,} parameters)>"

    def _repr_html_(self) -> str:
        scores = self.validation.metrics
        rows = [{"validation": name, "value": f"{value:.4g}"} for name, value in scores.items()]
        caption = f"{self.architecture}: {self.parameters:,} parameters, {', '.join(self.labels)}"
        return f"{show_table(table_of(rows), caption)}<p><code>{escape(self.name)}</code></p>"


def _given(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys that were given; None stands for the technique's own default."""
    return {name: value for name, value in keys.items() if value is not None}
