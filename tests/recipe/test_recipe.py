"""A recipe says everything, survives being written down, and an error in it names the key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from lesiontk.errors import DataError, UsageError
from lesiontk.recipe import (
    Recipe,
    dump_recipe,
    list_recipes,
    override_recipe,
    parse_recipe,
    read_recipe,
)

PROBE = parse_recipe({"name": "probe", "gate": ["accuracy >= 0.7"]})


def sections(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Every section of a recipe with its path: "", "data", "data.split", ..."""
    yield path, model
    for name, known in model.model_fields.items():
        if isinstance(known.annotation, type) and issubclass(known.annotation, BaseModel):
            yield from sections(known.annotation, f"{path}.{name}".lstrip("."))


def value_at(recipe: Recipe, key: str) -> Any:
    value: Any = recipe
    for part in key.split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value


def write_yaml(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


# ------------------------------------------------------------------------------ what is shipped


def test_recipes_are_shipped() -> None:
    assert {"demo", "cnn_7class"} <= set(list_recipes())


@pytest.mark.parametrize("name", list_recipes())
def test_a_shipped_recipe_loads_and_survives_being_written_down(name: str, tmp_path: Path) -> None:
    recipe = read_recipe(name)
    assert recipe.name == name
    assert recipe.description
    written = write_yaml(tmp_path, dump_recipe(recipe))
    assert read_recipe(written) == recipe


def test_a_changed_value_does_not_survive_unnoticed(tmp_path: Path) -> None:
    """The twin of the test above: its comparison sees one digit."""
    text = dump_recipe(PROBE)
    assert "batch_size: 32\n" in text
    written = write_yaml(tmp_path, text.replace("batch_size: 32\n", "batch_size: 33\n"))
    assert read_recipe(written) != PROBE


def test_a_written_recipe_shows_every_default() -> None:
    document = yaml.safe_load(dump_recipe(PROBE))
    for path, model in sections(Recipe):
        section = document
        for part in path.split(".") if path else []:
            section = section[part]
        assert set(section) == set(model.model_fields), path or "recipe"


def test_a_recipe_never_changes_after_it_was_read() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        PROBE.train.epochs = 3  # type: ignore[misc]


# ------------------------------------------------------------------------------ unknown keys


@pytest.mark.parametrize(("path", "model"), list(sections(Recipe)))
def test_an_unknown_key_names_the_nearest_in_every_section(
    path: str, model: type[BaseModel]
) -> None:
    for key in model.model_fields:
        where = f"{path}.{key}x".lstrip(".")
        with pytest.raises(UsageError) as caught:
            override_recipe(PROBE, [f"{where}=1"])
        assert f"unknown key {where!r}. Did you mean {key!r}?" in str(caught.value)


def test_a_gate_of_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"Did you mean 'accuracy'\?\)?\.\n  acuracy >= 0.7\n  \^"):
        override_recipe(PROBE, ["gate=[acuracy >= 0.7]"])


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        override_recipe(PROBE, ["train.epoch=1", "data.crop_mode=squash", "bench.rounds=1"])
    for key in ("'train.epoch'", "data.crop_mode", "bench.rounds"):
        assert key in str(caught.value)


# ------------------------------------------------------------------------------ overrides


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("train.epochs=3", 3),
        ("train.learning_rate=1e-4", 1e-4),
        ("train.learning_rate=0.5", 0.5),
        ("train.mixed_precision=true", True),
        ("train.imbalance=focal_loss", ("focal_loss",)),
        ("train.imbalance=[focal_loss, sqrt_sampling]", ("focal_loss", "sqrt_sampling")),
        ("model.weights=none", "none"),
        ("data.path=/a folder/with = in it", "/a folder/with = in it"),
        ("data.path=null", None),
        ("data.split.seed=11", 11),
        ("convert=[tflite:int8]", ("tflite:int8",)),
        ("gate=accuracy >= .5", ("accuracy >= 0.5",)),
        ("gate=[]", ()),
        ("unresolved=fail", "fail"),
    ],
)
def test_an_override_has_the_type_of_its_key(override: str, value: Any) -> None:
    received = value_at(override_recipe(PROBE, [override]), override.partition("=")[0])
    assert received == value
    assert type(received) is type(value)


def test_a_section_can_be_overridden_whole() -> None:
    recipe = override_recipe(PROBE, ["data.synthetic={lesions: 70}"])
    assert recipe.data.synthetic.lesions == 70


def test_a_gate_is_kept_in_one_spelling() -> None:
    recipe = override_recipe(PROBE, ['gate=["recall[mel]>=parent-.02@0.90", default]'])
    assert recipe.gate == ("recall[mel] >= parent - 0.02 @ 0.9", "default")
    assert override_recipe(recipe, []) == recipe


def test_a_recipe_that_names_no_gate_has_those_of_its_task() -> None:
    assert parse_recipe({"name": "probe"}).gate == ("default",)


def test_the_last_override_holds_and_the_recipe_itself_is_kept() -> None:
    changed = override_recipe(PROBE, ["train.epochs=3", "train.epochs=4"])
    assert changed.train.epochs == 4
    assert PROBE.train.epochs != 4
    assert changed.model_copy(update={"train": PROBE.train}) == PROBE


def test_a_recipe_is_read_with_overrides() -> None:
    assert read_recipe("demo", ["train.epochs=3"]).train.epochs == 3
    assert read_recipe("demo").train.epochs != 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs", "is not section.key=value"),
        ("=3", "is not section.key=value"),
        ("name.first=3", "'name' is a value; expected a section"),
        ("train.epochs.first=3", "'epochs' is a value; expected a section"),
        ("train.epochs=[1", "'train.epochs=\\[1': its value is not valid YAML"),
        ("train.imbalance={a: 1, a: 2}", "duplicate key a"),
    ],
)
def test_an_override_that_cannot_be_understood_is_refused(override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        override_recipe(PROBE, [override])


# ------------------------------------------------------------------------------ bad values


@pytest.mark.parametrize(
    ("override", "received"),
    [
        ("train.epochs=0", "0"),
        ("train.epochs=soon", "'soon'"),
        ("train.epochs=2.5", "2.5"),
        ("train.epochs=", "None"),
        ("description=", "None"),
        ("train.learning_rate=0", "0"),
        ("train.learning_rate=.inf", "inf"),
        ("train.warmup_epochs=.inf", "inf"),
        ("train.weight_decay=.nan", "nan"),
        ("data.crop_mode=squash", "'squash'"),
        ("data.image_size=8", "8"),
        ("data.split.test=0.5", "0.5"),
        ("data.split.group=image_id", "'image_id'"),
        ("train=3", "3"),
        ("model.weights=no", "False"),
        ("convert=[]", "[]"),
        ("unresolved=maybe", "'maybe'"),
        ("name=Two Words", "'Two Words'"),
        ("evaluate.resamples=10000000000", "10000000000"),
        ("bench.threads=100000", "100000"),
    ],
)
def test_a_value_out_of_range_names_its_key_and_itself(override: str, received: str) -> None:
    with pytest.raises(UsageError) as caught:
        override_recipe(PROBE, [override])
    message = str(caught.value)
    assert message.startswith(f"the recipe is not valid: {override.partition('=')[0]}")
    assert f"(received {received})" in message


SEEDS = [f"{path}.seed" for path, model in sections(Recipe) if "seed" in model.model_fields]


@pytest.mark.parametrize("key", SEEDS)
@pytest.mark.parametrize("value", [-1, 2**32])
def test_a_seed_that_no_generator_takes_is_refused_before_any_work(key: str, value: int) -> None:
    """NumPy's and TensorFlow's generators raise a ValueError, in the middle of a run."""
    with pytest.raises(UsageError, match=rf"not valid: {key}: .*\(received {value}\)"):
        override_recipe(PROBE, [f"{key}={value}"])
    assert value_at(override_recipe(PROBE, [f"{key}={2**32 - 1}"]), key) == 2**32 - 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["data.training_size=64"], r"training_size is 64; expected image_size \(96\) or more"),
        (["data.training_size=128", "data.crop_mode=stretch"], "expected none with enhance or"),
        (["data.training_aspect=1.5", "data.crop_mode=stretch"], "expected 1 with enhance or"),
    ],
)
def test_training_pictures_that_cannot_be_made_are_refused(more: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        override_recipe(PROBE, ["data.image_size=96", *more])


def test_gates_of_earlier_versions_are_refused_with_what_says_the_same_now() -> None:
    old = {"recall[mel]": {"max_drop": 0.01, "confidence": 0.95}}
    said = r'expected a list of lines, such as gate: \["recall\[mel\] >= parent - 0.01 @ 0.95"\]'
    with pytest.raises(UsageError, match=said):
        parse_recipe({"name": "probe", "gate": old})


def test_a_recipe_needs_its_name() -> None:
    with pytest.raises(UsageError, match="name: Field required"):
        parse_recipe({})


# ------------------------------------------------------------------------------ bad files


def test_an_unknown_recipe_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown recipe 'dmo'; known .* Did you mean 'demo'\?"):
        read_recipe("dmo")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(DataError, match=r"recipe file nowhere/mine\.yaml does not exist"):
        read_recipe("nowhere/mine.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [probe", r"mine\.yaml is not valid YAML: .*line 1"),
        ("name: probe\ntrain: {epochs: 1, epochs: 2}", "duplicate key epochs"),
        ("- name\n- probe\n", r"mine\.yaml is list; expected keys"),
        ("", r"mine\.yaml is NoneType; expected keys"),
        ("name: probe\ntrain:\n", r"train: .* \(received None\)"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"(?s){message}"):
        read_recipe(write_yaml(tmp_path, text))


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(DataError, match=r"mine\.yaml is not valid UTF-8"):
        read_recipe(str(tmp_path / "mine.yaml"))


def test_an_error_repeats_neither_a_whole_value_nor_every_fault() -> None:
    with pytest.raises(UsageError) as caught:
        parse_recipe({"name": "probe", "train": {"epochs": ["x" * 10_000] * 1000}})
    assert len(str(caught.value)) < 400
    with pytest.raises(UsageError, match=r"unknown key 'key0'.*; and 29995 more$") as caught:
        parse_recipe({"name": "probe", **{f"key{n}": n for n in range(30_000)}})
    assert len(str(caught.value)) < 400
