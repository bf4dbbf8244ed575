"""Tasks: every diagnosis has the label that the task says, and nothing is guessed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from lesiontk.data.tasks import (
    Task,
    list_tasks,
    load_task,
    normalize_diagnosis,
    task_of_engine,
)
from lesiontk.errors import DataError, UsageError
from lesiontk.records import EngineSpec, Preprocessing

OWN: dict[str, Any] = {
    "title": "Melanoma or not",
    "labels": ["other", "melanoma"],
    "critical": "melanoma",
    "mapping": {"mel": "melanoma", "nv": "other", "0": "other"},
}


def write_task(folder: Path, **changes: Any) -> Path:
    path = folder / "melanoma_or_not.yaml"
    path.write_text(yaml.safe_dump({**OWN, **changes}))
    return path


def test_the_tasks_that_come_along_are_whole() -> None:
    assert list_tasks() == ("seven_class", "malignancy")
    for name in list_tasks():
        task = load_task(name)
        assert task.name == name
        assert task.title


def test_seven_class_keeps_each_diagnosis_in_its_place() -> None:
    task = load_task("seven_class")
    assert task.labels == ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    assert task.critical == "mel"
    assert [task.label_index(label) for label in task.labels] == list(range(7))


def test_malignancy_calls_these_malignant_and_the_rest_benign() -> None:
    task = load_task("malignancy")
    assert (task.labels, task.critical) == (("benign", "malignant"), "malignant")
    malignant = {dx for dx in load_task("seven_class").mapping if task.label_index(dx) == 1}
    assert malignant == {"mel", "bcc", "akiec", "scc"}


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("MEL", "mel"),
        ("AKIEC", "akiec"),
        ("AK", "akiec"),
        ("SCC", "akiec"),
        ("melanoma", "mel"),
        ("Melanocytic Nevus", "nv"),
        ("melanocytic_nevi", "nv"),
        ("basal-cell carcinoma", "bcc"),
        (" Benign  keratosis-like lesions ", "bkl"),
        ("dermatofibroma", "df"),
        ("Vascular lesions", "vasc"),
        ("Bowen\N{RIGHT SINGLE QUOTATION MARK}s disease", "akiec"),
    ],
)
def test_other_names_of_a_diagnosis_are_known(name: str, label: str) -> None:
    task = load_task("seven_class")
    assert task.labels[task.label_index(name)] == label


@pytest.mark.parametrize(("name", "nearest"), [("melanomma", "melanoma"), ("bccc", "bcc")])
def test_an_unknown_diagnosis_is_an_error_with_the_nearest_name(name: str, nearest: str) -> None:
    with pytest.raises(DataError, match=f"{name!r} has no label .* Did you mean '{nearest}'"):
        load_task("seven_class").label_index(name)


def test_isics_unknown_class_has_no_label() -> None:
    with pytest.raises(DataError, match="'UNK' has no label in the task malignancy"):
        load_task("malignancy").label_index("UNK")


def test_an_unknown_task_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"known are seven_class, .* mean 'seven_class'"):
        load_task("sevenclass")


def test_a_task_of_ones_own_is_a_file(tmp_path: Path) -> None:
    path = write_task(tmp_path, aliases={"nv": ["Spilus", "cafe-au-lait"]})
    for task in (load_task(path), load_task(str(path))):
        assert task.name == "melanoma_or_not"
        assert [task.label_index(dx) for dx in ("melanoma", "NV", "0", "spilus")] == [1, 0, 0, 0]
        assert task.label_index("Cafe au lait") == 0
        with pytest.raises(DataError, match="'bcc' has no label"):
            task.label_index("bcc")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lables": []}, r"unknown key 'lables'; expected .*Did you mean 'labels'"),
        ({"labels": ["melanoma"]}, r"labels are \['melanoma'\]; expected two or more"),
        ({"labels": ["other", "melanoma", "other"]}, r"expected two or more different"),
        ({"labels": "melanoma"}, r"expected labels as a list"),
        ({"labels": ["other", "melanoma", 3]}, r"received 3; expected text"),
        ({"critical": "melanom"}, r"critical is 'melanom'; .*Did you mean 'melanoma'"),
        ({"mapping": {"mel": "melanoma", "nv": "othr"}}, r"mapping.nv is 'othr'; .*'other'"),
        ({"mapping": {"mel": "melanoma"}}, r"no diagnosis is mapped to other"),
        ({"mapping": {"mel": "melanoma", "nv": False}}, r"received False; expected text"),
        ({"mapping": {**OWN["mapping"], "MEL": "other"}}, r"duplicate key .* in two spellings"),
        ({"mapping": ["mel"]}, r"mapping as diagnosis: label"),
        ({"aliases": ["mel"]}, r"expected aliases as diagnosis"),
        ({"aliases": {"mell": ["x"]}}, r"alias of 'mell', which is not in the mapping; .*'mel'"),
        ({"aliases": {"mel": ["x"], "nv": ["x"]}}, r"'x' is an alias of mel and of nv"),
    ],
)
def test_a_wrong_task_file_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load_task(write_task(tmp_path, **changes))


@pytest.mark.parametrize("key", list(OWN))
def test_a_task_file_must_be_complete(tmp_path: Path, key: str) -> None:
    path = write_task(tmp_path)
    path.write_text(yaml.safe_dump({name: value for name, value in OWN.items() if name != key}))
    with pytest.raises(DataError, match=f"{key} is missing"):
        load_task(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"title: [", "is not valid YAML"),
        (b"- a\n- b\n", "contains list; expected keys"),
        (b"", "contains NoneType"),
        (b"\xff\xfe\x00", "is not valid UTF-8"),
        (b"title: a\ntitle: b\n", "duplicate key title"),
        (b"!!python/object/apply:os.getcwd []", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_task_is_refused(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "task.yml"
    path.write_bytes(text)
    with pytest.raises(DataError, match=message):
        load_task(path)


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.yaml does not exist"):
        load_task(tmp_path / "nothing.yaml")


def test_a_task_is_checked_where_it_is_made() -> None:
    with pytest.raises(DataError, match="critical is 'c'"):
        Task("t", "T", ("a", "b"), "c", {"x": "a", "y": "b"})


def test_normalizing_twice_changes_nothing() -> None:
    for name in ("Basal-Cell  carcinoma", "a_b", " x "):
        assert normalize_diagnosis(normalize_diagnosis(name)) == normalize_diagnosis(name)


# ------------------------------------------------------------------ positive labels


def test_the_malignant_diagnoses_are_the_positive_labels() -> None:
    assert load_task("seven_class").positive == ("akiec", "bcc", "mel")
    assert load_task("malignancy").positive == ("malignant",)


def test_without_the_key_the_critical_label_alone_is_positive(tmp_path: Path) -> None:
    assert load_task(write_task(tmp_path)).positive == ("melanoma",)


def test_positive_labels_of_a_task_file_stand_in_the_order_of_the_labels(tmp_path: Path) -> None:
    changes = {
        "labels": ["bcc", "other", "melanoma"],
        "mapping": {"mel": "melanoma", "nv": "other", "bcc": "bcc"},
    }
    task = load_task(write_task(tmp_path, positive=["melanoma", "bcc"], **changes))
    assert task.positive == ("bcc", "melanoma")


@pytest.mark.parametrize(
    ("positive", "message"),
    [
        (["melanomas"], "positive is 'melanomas'.*Did you mean 'melanoma'"),
        (["other"], "expected melanoma .* among them"),
        (["other", "melanoma"], "not all labels"),
        ([], "expected a list of labels"),
        ("melanoma", "expected a list of labels"),
    ],
)
def test_wrong_positive_labels_are_refused(tmp_path: Path, positive: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_task(write_task(tmp_path, positive=positive))


def make_spec(task: Task, definition: dict[str, Any] | None) -> EngineSpec:
    return EngineSpec(
        labels=task.labels,
        preprocessing=Preprocessing(32),
        task=task.name,
        backend="onnx",
        precision="int8",
        recipe="probe",
        split_hash="0" * 64,
        extra={} if definition is None else {"task_definition": json.loads(json.dumps(definition))},
    )


def test_an_engine_carries_its_task(tmp_path: Path) -> None:
    for task in (load_task("seven_class"), load_task(write_task(tmp_path))):
        assert task_of_engine(make_spec(task, asdict(task))) == task


def test_an_engine_from_before_the_positive_labels_still_opens(tmp_path: Path) -> None:
    seven, own = load_task("seven_class"), load_task(write_task(tmp_path))
    for task in (seven, own):
        before = {key: value for key, value in asdict(task).items() if key != "positive"}
        assert task_of_engine(make_spec(task, before)) == task
    other = {**asdict(seven), "mapping": {**seven.mapping, "scc": "bcc"}}
    del other["positive"]
    assert task_of_engine(make_spec(seven, other)).positive == ("mel",)
    assert task_of_engine(make_spec(seven, None)) == seven


def test_an_engine_with_other_labels_than_its_task_is_refused() -> None:
    seven, two = load_task("seven_class"), load_task("malignancy")
    with pytest.raises(DataError, match="expected those of its task seven_class"):
        task_of_engine(make_spec(two, asdict(seven)))
