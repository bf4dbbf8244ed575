"""Experiment tracking: what a team's own tool shows of trainings, engines, benchmarks, searches."""

from __future__ import annotations

from lesiontk.registry import Registry
from lesiontk.tracking.tracker import State, TrackedRun, Tracker, explain_failure

__all__ = ["TRACKERS", "State", "TrackedRun", "Tracker", "explain_failure"]

TRACKERS: Registry[type[Tracker]] = Registry("tracker")
TRACKERS.register(
    "mlflow",
    "lesiontk.tracking.mlflow_tracker:MlflowTracker",
    "MLflow, in the workspace or on a server",
)
