"""Counters of the server in Prometheus' text format, version 0.0.4."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping

TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Upper bounds in seconds, from decoding to the decision."""


class Metrics:
    """Counts of answers and of time; `info` are the labels of a constant, such as the bundle."""

    def __init__(self, info: Mapping[str, str]) -> None:
        self._info = dict(info)
        self._lock = threading.Lock()
        self._responses: Counter[int] = Counter()
        self._classes: Counter[str] = Counter()
        self._buckets: Counter[float] = Counter()
        self._seconds = 0.0
        self._count = 0

    def count_response(self, code: int) -> None:
        """Count a response by its HTTP status."""
        with self._lock:
            self._responses[code] += 1

    def count_prediction(self, label: str, seconds: float) -> None:
        """Count a prediction and the time from decoding to decision."""
        with self._lock:
            self._classes[label] += 1
            self._count += 1
            self._seconds += seconds
            for bound in BUCKETS:
                self._buckets[bound] += seconds <= bound

    def render(self, waiting: int) -> str:
        """Return the text; `waiting` are the jobs before the engine."""
        with self._lock:
            lines = [
                *_metric("lesiontk_info", "gauge", "What is served.", [(self._info, 1)]),
                *_metric(
                    "lesiontk_responses_total",
                    "counter",
                    "Responses by HTTP status.",
                    [({"code": str(code)}, n) for code, n in sorted(self._responses.items())],
                ),
                *_metric(
                    "lesiontk_predictions_total",
                    "counter",
                    "Predictions by the most probable class.",
                    [({"label": name}, n) for name, n in sorted(self._classes.items())],
                ),
                *_metric("lesiontk_waiting", "gauge", "Images that wait.", [({}, waiting)]),
                "# HELP lesiontk_predict_seconds Decoding, preprocessing and inference.",
                "# TYPE lesiontk_predict_seconds histogram",
                *(_sample("_bucket", {"le": f"{b:g}"}, self._buckets[b]) for b in BUCKETS),
                _sample("_bucket", {"le": "+Inf"}, self._count),
                _sample("_sum", {}, self._seconds),
                _sample("_count", {}, self._count),
            ]
        return "\n".join(lines) + "\n"


def _sample(suffix: str, labels: Mapping[str, str], value: float) -> str:
    return _line("lesiontk_predict_seconds" + suffix, labels, value)


def _metric(
    name: str, kind: str, text: str, samples: Iterable[tuple[Mapping[str, str], float]]
) -> list[str]:
    lines = [_line(name, labels, value) for labels, value in samples]
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *lines]


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    pairs = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
    return f"{name}{'{' + pairs + '}' if pairs else ''} {value:.10g}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
