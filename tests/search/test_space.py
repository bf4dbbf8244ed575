"""A space names keys that recipes have, with values that they can have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lesiontk.errors import UsageError
from lesiontk.search.space import SearchSpace, parse_space, read_space, show_setting
from lesiontk.workflow.new_search import write_space
from lesiontk.workflow.search import override_space
from lesiontk.workflow.search_candidates import list_probes

OBSERVERS = {"calibration.observer": ["min_max", "percentile"]}


def make_space(vary: dict[str, Any], **keys: Any) -> SearchSpace:
    return parse_space({"vary": vary, **keys})


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ({}, "the space is empty"),
        ({"calibration.observr": ["min_max"]}, "Did you mean 'calibration.observer'"),
        ({"calibration.observer": []}, "has no values"),
        ({"calibration.observer": ["min_max", "min_max"]}, "has a value twice"),
        ({"calibration.observer": "min_max"}, "A key with one value belongs to `set`"),
        ({"train.epochs": {"low": 3, "high": 3}}, "expected low < high"),
        ({"train.epochs": {"low": 3, "hihg": 9}}, "Did you mean 'high'"),
        ({"train.learning_rate": {"low": 0, "high": 1, "log": True}}, "expected low above 0"),
        ({"target": ["tflite:int9"]}, "int9"),
        ({"convert": [["tflite:int8"]]}, "vary `target`"),
        ({"data.split.seed": [1, 2]}, "compared on the same images"),
        ({"evaluate.threshold": ["youden"]}, "by the same rules"),
        ({"compress.prune.keep_macs": [0.5]}, r"a chain that is not given"),
        ({"compress": [[]], "compress.prun.keep_macs": [0.5]}, "Did you mean 'prune'"),
        ({"compress": [[]], "compress.prune.kep_macs": [0.5]}, "'compress.prune.keep_macs'"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(vary: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_space(vary)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"objectivs": ["accuracy"]}, "Did you mean 'objectives'"),
        ({"sampler": "tpf"}, "sampler"),
        ({"trials": 0}, "trials"),
        ({"objectives": []}, "objectives"),
        ({"set": {"train.epoch": 3}}, "Did you mean 'train.epochs'"),
    ],
)
def test_unknown_keys_and_values_of_a_space_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_space(OBSERVERS, **keys)


def test_an_option_of_a_technique_applies_where_the_chain_has_it() -> None:
    space = make_space(
        {
            "compress.prune.keep_macs": [0.3, 0.6],
            "compress": [[], [{"prune": {"criterion": "taylor"}}, {"qat": {}}]],
        }
    )
    assert list(space.list_assignments()) == [
        {"compress": []},
        {"compress": [{"prune": {"criterion": "taylor"}}, {"qat": {}}],
         "compress.prune.keep_macs": 0.3},
        {"compress": [{"prune": {"criterion": "taylor"}}, {"qat": {}}],
         "compress.prune.keep_macs": 0.6},
    ]  # fmt: skip
    last = list(space.list_assignments())[-1]
    assert space.candidate_of(last).settings == {
        "compress": [{"prune": {"criterion": "taylor", "keep_macs": 0.6}}, {"qat": {}}]
    }
    assert last["compress"][0] == {"prune": {"criterion": "taylor"}}, "the space is as it was"


def test_inner_options_and_a_shared_chain() -> None:
    space = make_space(
        {"compress.prune.recover.epochs": [1, 2]},
        set={"compress": [{"prune": {}}], "train.seed": 3},
    )
    assert [space.candidate_of(chosen).settings for chosen in space.list_assignments()] == [
        {"compress": [{"prune": {"recover": {"epochs": epochs}}}], "train.seed": 3}
        for epochs in (1, 2)
    ]


def test_the_values_of_ranges() -> None:
    vary = {
        "train.epochs": {"low": 2, "high": 4},
        "train.learning_rate": {"low": 0.1, "high": 0.3, "step": 0.1},
        "train.weight_decay": {"low": 0.1, "high": 0.3},
    }
    epochs, rate, decay = make_space(vary).dimensions
    assert list(epochs.list_values()) == [2, 3, 4]
    assert list(rate.list_values()) == pytest.approx([0.1, 0.2, 0.3])
    assert (epochs.count, rate.count, decay.count) == (3, 3, None)
    assert make_space(vary).size is None


def test_a_space_is_counted_without_being_listed() -> None:
    space = make_space(
        {
            "compress": [[], [{"prune": {}}]],
            "compress.prune.keep_macs": {"low": 0.3, "high": 0.7, "step": 0.2},
            **OBSERVERS,
        }
    )
    assert space.size == len(list(space.list_assignments())) == 2 * (1 + 3)
    seeds = {"train.seed": {"low": 0, "high": 2**32 - 1}, "train.epochs": {"low": 1, "high": 50}}
    assert make_space(seeds).size == 2**32 * 50
    assert make_space({"train.epochs": {"low": 1, "high": 8, "log": True}}).size == 8


def test_a_grid_that_is_too_large_is_refused() -> None:
    with pytest.raises(UsageError, match="4,294,967,296 candidates; expected 100,000 at most"):
        make_space({"train.seed": {"low": 0, "high": 2**32 - 1}}, sampler="grid")


def test_a_grid_needs_steps() -> None:
    with pytest.raises(UsageError, match=r"train.weight_decay has any number from 0.1 to 0.3"):
        make_space({"train.weight_decay": {"low": 0.1, "high": 0.3}}, sampler="grid")


def test_each_value_is_probed_in_a_candidate_that_has_it() -> None:
    space = make_space(
        {
            "compress": [[], [{"prune": {}}]],
            "compress.prune.keep_macs": {"low": 0.3, "high": 0.6},
            **OBSERVERS,
        }
    )
    probes = list(list_probes(space))
    assert {(key, str(value)) for _, key, value in probes[1:]} == {
        ("compress", "[]"), ("compress", "[{'prune': {}}]"),
        ("compress.prune.keep_macs", "0.3"), ("compress.prune.keep_macs", "0.6"),
        ("calibration.observer", "min_max"), ("calibration.observer", "percentile"),
    }  # fmt: skip
    assert all(chosen[key] == value for chosen, key, value in probes[1:])


def test_an_option_that_never_applies_is_refused() -> None:
    space = make_space({"compress": [[]], "compress.prune.keep_macs": [0.5]})
    with pytest.raises(UsageError, match="never applies"):
        list(list_probes(space))


def test_overrides_are_keys_that_all_candidates_share() -> None:
    space = override_space(make_space(OBSERVERS, set={"train.epochs": 9}), ["train.epochs=3"])
    assert space.set == {"train.epochs": 3}
    with pytest.raises(UsageError, match="the space varies that key"):
        override_space(space, ["calibration.observer=min_max"])
    with pytest.raises(UsageError, match=r"Did you mean 'train\.epochs'"):
        override_space(space, ["train.epoch=3"])


def test_the_example_is_a_space(tmp_path: Path) -> None:
    written = write_space(tmp_path / "space.yaml")
    space = read_space(written)
    assert len(space.constraints) == 3
    assert len(list(space.list_assignments())) == 2 * 2 * (1 + 3 + 3)
    with pytest.raises(UsageError, match="exists"):
        write_space(written)
    with pytest.raises(UsageError, match="does not exist"):
        write_space(tmp_path / "absent" / "space.yaml")


@pytest.mark.parametrize("text", ["- a list", "vary: [", "vary: {a: 1, a: 2}"])
def test_a_file_that_is_no_space_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match="the search space"):
        read_space(file)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ([], "none"),
        ([{"prune": {"keep_macs": 0.5}}, {"qat": {}}], "prune (keep_macs=0.5) + qat"),
        (0.000123456, "0.0001235"),
        (True, "True"),
        ("min_max", "min_max"),
    ],
)
def test_a_value_is_one_readable_line(value: Any, shown: str) -> None:
    assert show_setting(value) == shown
