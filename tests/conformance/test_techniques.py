"""What every registered compression technique must say of itself."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from lesiontk.cli.compression import make_command, name_command
from lesiontk.cli.main import cli, list_summaries
from lesiontk.recipe import TrainSection
from lesiontk.technique import ORIGINS, TECHNIQUES, check_order, find_technique

each_technique = pytest.mark.parametrize("name", list(TECHNIQUES))


def find_field(config: type[BaseModel], key: str) -> Any:
    """Return the field of a dotted key; `KeyError` if there is none."""
    *sections, last = key.split(".")
    for section in sections:
        config = type(config.model_fields[section].default)
    return config.model_fields[last]


@each_technique
def test_its_entry_bears_its_name_and_it_makes_a_model_of_a_model(name: str) -> None:
    info = find_technique(name).info
    assert info.name == name
    assert info.produces == "model"
    assert info.accepts["model"] == "model"


@each_technique
def test_its_options_and_networks_are_keys_of_its_config(name: str) -> None:
    info = find_technique(name).info
    keys = [*info.options, *info.networks, *filter(None, [info.argument])]
    assert all(find_field(info.config, key) for key in keys)
    needed = {key for key, field in info.config.model_fields.items() if field.is_required()}
    assert needed <= set(keys), "what a recipe must give the command must take, too"
    with pytest.raises(KeyError):
        find_field(info.config, "no_such_key")


@each_technique
def test_the_sections_that_inherit_are_trainings(name: str) -> None:
    info = find_technique(name).info
    for section, keys in info.inherits.items():
        assert isinstance(info.config.model_fields[section].default, TrainSection)
        assert set(keys) <= set(TrainSection.model_fields)
    trainings = {
        key
        for key, field in info.config.model_fields.items()
        if isinstance(field.default, TrainSection)
    }
    assert trainings == set(info.inherits)


@each_technique
def test_it_may_follow_a_trained_model_and_says_why_another_cannot_follow(name: str) -> None:
    info = find_technique(name).info
    for origin in ORIGINS:
        check_order(name, [origin])
    assert bool(info.why_last) == bool(info.leaves - info.holds) == bool(info.leaves)
    assert not (info.trains and info.leaves), "a network as it was trained is free to change"


@each_technique
def test_its_command_is_listed_and_says_what_it_does(name: str) -> None:
    command = name_command(name)
    assert list_summaries()[command].endswith(".")
    help_ = CliRunner().invoke(cli, [command, "--help"])
    assert help_.exit_code == 0
    options = {option for p in make_command(name).params for option in p.opts}
    for key in find_technique(name).info.options:
        flag = f"--{key.rpartition('.')[2].replace('_', '-')}"
        assert flag in options
        assert flag in help_.output
