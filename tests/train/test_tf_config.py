"""What TF_CONFIG may say, and what is said of one that does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lesiontk.errors import MissingRequirementError, UsageError
from lesiontk.train.tf_config import EXAMPLE, Cluster, read_cluster

WORKERS = ["10.0.0.1:2222", "10.0.0.2:2222"]


def config(cluster: Any = None, task: Any = None) -> dict[str, str]:
    cluster = {"worker": WORKERS} if cluster is None else cluster
    task = {"type": "worker", "index": 1} if task is None else task
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}


def test_the_example_in_the_messages_is_understood() -> None:
    assert read_cluster({"TF_CONFIG": EXAMPLE}) == Cluster(tuple(WORKERS), 0)


def test_workers_are_numbered_as_they_are_listed() -> None:
    assert read_cluster(config()) == Cluster(tuple(WORKERS), 1)


def test_a_chief_comes_before_the_workers() -> None:
    cluster = {"chief": ["10.0.0.9:1"], "worker": WORKERS}
    everyone = ("10.0.0.9:1", *WORKERS)
    assert read_cluster(config(cluster)) == Cluster(everyone, 2)
    chief = {"type": "chief", "index": 0}
    assert read_cluster(config(cluster, chief)) == Cluster(everyone, 0)


@pytest.mark.parametrize("environment", [{}, {"TF_CONFIG": ""}])
def test_a_missing_variable_is_shown_how_to_set(environment: dict[str, str]) -> None:
    with pytest.raises(MissingRequirementError, match="TF_CONFIG is not set; expected") as caught:
        read_cluster(environment)
    assert EXAMPLE in str(caught.value)


MALFORMED = {
    "no JSON": ({"TF_CONFIG": "{worker: 1}"}, "which is not JSON"),
    "no object": ({"TF_CONFIG": "[1]"}, "without a section 'cluster'"),
    "no task": ({"TF_CONFIG": '{"cluster": {}}'}, "without a section 'task'"),
    "no cluster": (config(cluster=["a:1"]), "without a section 'cluster'"),
    "a parameter server": (config({"worker": WORKERS, "ps": ["a:1"]}), "tasks of type ps"),
    "no list": (config({"worker": "a:1"}), "'a:1' where host:port strings are listed"),
    "no port": (config({"worker": ["10.0.0.1"]}), "where host:port strings are listed"),
    "a port too high": (config({"worker": ["a:70000"]}), "where host:port strings are listed"),
    "an index too high": (config(task={"type": "worker", "index": 2}), "'worker', index 2, which"),
    "an index in words": (config(task={"type": "worker", "index": "1"}), "index '1', which"),
    "no such type": (config(task={"type": "evaluator", "index": 0}), "'evaluator', index 0, which"),
    "an address twice": (config({"worker": ["a:1", "a:1"]}), "a duplicate address"),
    "two chiefs": (config({"chief": ["a:1", "b:1"], "worker": ["c:1", "d:1"]}), "two chiefs"),
}


@pytest.mark.parametrize(("environment", "why"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_variable_is_refused(environment: dict[str, str], why: str) -> None:
    with pytest.raises(UsageError, match="received TF_CONFIG=") as caught:
        read_cluster(environment)
    assert why in str(caught.value)
    assert EXAMPLE in str(caught.value)
