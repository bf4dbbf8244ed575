"""What every registered bundle target must say of itself."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib import resources

import pytest

from lesiontk.backends import parse_target
from lesiontk.deploy import BUNDLE_TARGETS, find_bundle_target
from lesiontk.errors import UsageError
from lesiontk.records import EngineSpec
from tests.conformance.fitted_models import SPEC

each_target = pytest.mark.parametrize("name", list(BUNDLE_TARGETS))


def spec_of(target: str) -> EngineSpec:
    backend, precision = parse_target(target)
    return replace(SPEC, backend=backend, precision=precision)


@each_target
def test_its_engines_are_known_and_the_first_is_chosen(name: str) -> None:
    target = find_bundle_target(name)
    assert target.name == name
    assert len(set(target.engines)) == len(target.engines) > 0
    for engine in target.engines:
        parse_target(engine)
        assert target.choose([engine]) == engine
    assert target.choose(target.engines[::-1]) == target.engines[0]
    with pytest.raises(UsageError, match=re.escape(f"{name} runs {target.engines[0]}")):
        target.choose(["keras:no_precision"])


@each_target
def test_each_engine_has_a_runtime_whose_file_exists(name: str) -> None:
    target = find_bundle_target(name)
    for engine in target.engines:
        runtimes = target.runtimes(spec_of(engine))
        assert runtimes
        for runtime in runtimes:
            assert resources.files(runtime.package).joinpath(runtime.file).is_file()
            pinned = resources.files("lesiontk.deploy").joinpath(
                "requirements", f"{runtime.name}.txt"
            )
            assert pinned.is_file()


@each_target
def test_it_says_which_python_it_needs(name: str) -> None:
    assert re.fullmatch(r"3\.\d+", find_bundle_target(name).python)
