"""Results of engines and models: predictions, evaluations, verifications and others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lesiontk.api.findings import (
    Findings,
    Formats,
    GatedFindings,
    estimate_columns,
    number,
    table_of,
)

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from lesiontk.bench.layer_profile import LayerLatency, LayerProfile
    from lesiontk.calibration.stability import FurtherDraw
    from lesiontk.calibration.stability import Stability as StabilityRecord
    from lesiontk.compress.sensitivity import LayerSensitivity
    from lesiontk.compress.sensitivity import Sensitivity as SensitivityRecord
    from lesiontk.document import Record
    from lesiontk.evaluate.bootstrap import Estimate
    from lesiontk.evaluate.evaluation import EngineEvaluation
    from lesiontk.evaluate.fit_input_checks import ClassRefusals
    from lesiontk.evaluate.fit_input_checks import InputChecks as InputChecksRecord
    from lesiontk.evaluate.gate_power import GatePower as GatePowerRecord
    from lesiontk.evaluate.robustness import CorruptedResult
    from lesiontk.evaluate.robustness import Robustness as RobustnessRecord
    from lesiontk.evaluate.verdict import GateVerdict
    from lesiontk.records import Artefact
    from lesiontk.workflow.predict import Predictions as PredictionsRecord
    from lesiontk.workflow.predict import UnreadPicture
    from lesiontk.workflow.verify import VerifiedArtefacts


class Predictions(Findings):
    """Class probabilities of images, and the decision at the engine's threshold, if any.

    `record` contains every value by name.
    """

    def __init__(self, record: PredictionsRecord) -> None:
        self.record: PredictionsRecord = record

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of the probabilities' columns."""
        return self.record.labels

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Float [N, C] of the N readable images, rounded to six digits."""
        rows = [[p.probabilities[name] for name in self.labels] for p in self.record.predictions]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.labels))

    @property
    def failures(self) -> tuple[UnreadPicture, ...]:
        """The images that could not be read, each with `image` and `message`."""
        return self.record.failures

    @property
    def caption(self) -> str:
        point = self.record.operating_point
        at = f"positive from {point.threshold:.4g}" if point else "no threshold, no decision"
        return f"{self.record.engine}: {at}. {self.record.notice}"

    def __len__(self) -> int:
        return len(self.record.predictions)

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each readable image: image, label, decision, probabilities."""
        rows = [prediction.to_document() for prediction in self.record.predictions]
        return table_of([{**row, **row.pop("probabilities")} for row in rows])


class Profile(Findings):
    """The latency of each layer of an engine, the slowest first.

    `record` contains every figure by name.
    """

    formats: ClassVar[Formats] = {
        **{name: number(3) for name in ("median_ms", "low_ms", "high_ms", "share")},
        "gops": number(1),
    }

    def __init__(self, record: LayerProfile) -> None:
        self.record: LayerProfile = record

    @property
    def layers(self) -> tuple[LayerLatency, ...]:
        """The layers, the slowest first."""
        return self.record.layers

    @property
    def caption(self) -> str:
        """How the layers were measured."""
        from lesiontk.report.speed_table import describe_profile

        return describe_profile(self.record)

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each layer: layer, kinds, median_ms, low_ms, high_ms, share, macs,
        gops."""
        rows = [layer.to_document() for layer in self.layers]
        return table_of([{**row, "kinds": ", ".join(row["kinds"])} for row in rows])


class Evaluation(GatedFindings):
    """The evaluation of an engine on labelled images: metrics with confidence intervals over
    lesions.

    `record` contains every figure by name.
    """

    formats: ClassVar[Formats] = {name: number(3) for name in ("value", "low", "high")}

    def __init__(self, record: EngineEvaluation, unresolved: str = "warn") -> None:
        self.record: EngineEvaluation = record
        self.unresolved = unresolved

    @property
    def metrics(self) -> Mapping[str, Estimate]:
        """Metric -> ``value``, ``low``, ``high``; None if undefined on the images."""
        return self.record.metrics

    @property
    def verdicts(self) -> tuple[GateVerdict, ...]:
        """The gates' verdicts, failures first; empty without gates."""
        from lesiontk.evaluate.verdict import sort_verdicts

        return sort_verdicts(self.record.gate)

    @property
    def notes(self) -> list[str]:
        """The notes on the evaluation."""
        from lesiontk.workflow.evaluate import list_notes

        return list_notes(self.record)

    @property
    def caption(self) -> str:
        """The engine, and the numbers of images and lesions."""
        return (
            f"{self.record.target}: {self.record.n} images of {self.record.lesions} lesions, "
            f"{self.record.confidence:.0%} intervals"
        )

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each metric: metric, value, low, high."""
        point = self.record.operating_point
        at = f"at {point.threshold:.4g}"
        rows = {
            **self.metrics,
            f"sensitivity {at}": point.sensitivity,
            f"specificity {at}": point.specificity,
            "auc of the positive": point.auc,
        }
        return table_of(
            [
                {"metric": name, "value": e.value, "low": e.low, "high": e.high}
                for name, e in rows.items()
            ]
        )

    def confusion(self) -> pd.DataFrame:
        """Return the confusion matrix: counts of images, with true labels in rows."""
        import pandas as pd

        labels = list(self.record.labels)
        return pd.DataFrame(np.array(self.record.confusion), index=labels, columns=labels)


class Verification(Findings):
    """Whether files match their manifests, and engines agree with their model.

    `record` contains every check by name.
    """

    formats: ClassVar[Formats] = {name: number(4) for name in ("value", "at_least", "at_most")}

    def __init__(self, record: VerifiedArtefacts) -> None:
        self.record: VerifiedArtefacts = record

    @property
    def intact(self) -> tuple[str, ...]:
        """The artefacts whose files were checked."""
        return self.record.intact

    @property
    def gone(self) -> tuple[str, ...]:
        """The ancestors that were deleted from the workspace."""
        return self.record.gone

    @property
    def caption(self) -> str:
        gone = f", {len(self.gone)} deleted" if self.gone else ""
        return f"{len(self.intact)} artefacts intact{gone}"

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each check of an engine: engine, check, value and its bound."""
        return table_of(
            [
                {
                    "engine": engine,
                    "check": check.name,
                    "value": check.value,
                    "at_least" if check.at_least else "at_most": check.bound,
                }
                for engine, verification in self.record.engines.items()
                for check in verification.checks
            ]
        )


class Measured(Findings):
    """A measurement of a model, in an artefact; `record` contains every figure by name."""

    def __init__(self, artefact: Artefact, record: Record, rows: Sequence[Record]) -> None:
        self.artefact = artefact
        self.record = record
        self.rows = tuple(rows)

    @property
    def document(self) -> Mapping[str, Any]:
        """The document of the command with ``--json``."""
        return {
            self.artefact.kind: self.artefact.name,
            "path": str(self.artefact.path),
            "rows": [row.to_document() for row in self.rows],
            **self.record.to_document(),
        }

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each measurement."""
        return table_of([row.to_document() for row in self.rows])


class Sensitivity(Measured):
    """The effect of int8 on each layer alone, the most sensitive first.

    The table's columns: layer, mean_drift, top1_agreement, balanced_accuracy (its change).
    """

    record: SensitivityRecord
    rows: tuple[LayerSensitivity, ...]
    formats: ClassVar[Formats] = {"mean_drift": number(5), "top1_agreement": number(3)}

    @property
    def kept(self) -> tuple[str, ...] | None:
        """The layers that stay in float in the engine ``BACKEND:mixed``.

        None if no set of layers that was tried meets the gate.
        """
        return self.record.kept

    @property
    def caption(self) -> str:
        """The result of the search."""
        return f"{self.record.outcome} (n = {self.record.images} validation images)"


class InputChecks(Measured):
    """The checks of an engine's input, and the test images that they refuse by class.

    The table's columns: label, n, poor_quality, out_of_domain, upper. `record.families` has the
    same of pictures that are not dermoscopic.
    """

    record: InputChecksRecord
    rows: tuple[ClassRefusals, ...]

    @property
    def caption(self) -> str:
        """What is refused of the validation images."""
        refused = self.record.false_refusals
        return (
            f"{self.record.target} refuses {refused['poor_quality']:.1%} of "
            f"{self.record.images['validation']} validation images for their quality, "
            f"{refused['out_of_domain']:.1%} as out of domain"
        )


class Stability(Measured):
    """The difference of int8 engines from other calibration draws to the recipe's.

    The table's columns are those of a draw: seed, images shared, agreement, scores.
    """

    record: StabilityRecord
    rows: tuple[FurtherDraw, ...]

    @property
    def caption(self) -> str:
        """The engine, and the number of images per draw."""
        return (
            f"{self.record.target}: further draws of {self.record.images} images "
            f"(n = {self.record.validation} validation images)"
        )


class Robustness(Measured):
    """An engine and its full-precision parent on clean and on corrupted test images.

    The table has a row for each corruption, severity and metric: the change of parent and engine
    from clean images, and the excess of the engine's over the parent's, negative if it loses more.
    """

    record: RobustnessRecord
    rows: tuple[CorruptedResult, ...]

    @property
    def document(self) -> Mapping[str, Any]:
        """The document of the command with ``--json``."""
        return {
            self.artefact.kind: self.artefact.name,
            "path": str(self.artefact.path),
            **self.record.to_document(),
        }

    @property
    def caption(self) -> str:
        """What the engine loses beyond its parent, on average over the corruptions."""
        from lesiontk.report.robustness_rows import describe_robustness

        return describe_robustness(self.record)

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each corruption, severity and metric."""
        return table_of(
            [
                {
                    "corruption": row.corruption,
                    "severity": row.severity,
                    "strength": row.strength,
                    "metric": metric,
                    **estimate_columns("parent", loss.parent),
                    **estimate_columns("engine", loss.engine),
                    **estimate_columns("excess", loss.excess),
                }
                for row in self.rows
                for metric, loss in row.losses.items()
            ]
        )


class GatePower(Findings):
    """The smallest loss that a test split can resolve, for each gate.

    Columns are kinds of engines, by how often their predictions differ from the parent's.
    """

    def __init__(self, gates: Sequence[GatePowerRecord]) -> None:
        self.gates = tuple(gates)

    @property
    def document(self) -> Mapping[str, Any]:
        """The document of ``lesiontk gate power --json``."""
        return {"gates": [gate.to_document() for gate in self.gates]}

    @property
    def caption(self) -> str:
        return "smallest margin that can be shown, at the first step of Holm's adjustment"

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each gate: gate, lesions, margin, and the smallest margin of each
        kind."""
        return table_of(
            [
                {"gate": g.gate, "lesions": g.lesions, "margin": g.margin, **g.among}
                for g in self.gates
            ]
        )
