"""A task and a recipe are written for a folder of images, and hold as they stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from lesiontk.cli.main import cli
from lesiontk.data.image_table import InspectedImage
from lesiontk.data.new_task import (
    FoundClass,
    choose_critical,
    find_classes,
    scalar,
    task_text,
)
from lesiontk.data.synthetic.dataset import render_view
from lesiontk.data.tasks import load_task
from lesiontk.errors import DataError, UsageError
from lesiontk.recipe import read_recipe
from lesiontk.recipe.gate_grammar import DEFAULT_GATES
from lesiontk.stages.split import read_split
from lesiontk.store import Store
from lesiontk.workflow.new_recipe import write_recipe, write_task
from lesiontk.workflow.train import build_data


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """Folders of a clinic: names of its own, two classes too rare to be split."""
    return write_folders(
        tmp_path / "clinic", Melanoma=("mel", 6), Naevus=("nv", 9), Wart=("bkl", 5),
        Rare=("vasc", 2), Rarer=("df", 1),
    )  # fmt: skip


def write_folders(root: Path, **classes: tuple[str, int]) -> Path:
    for name, (code, count) in classes.items():
        (root / name).mkdir(parents=True)
        for lesion in range(count):
            view = Image.fromarray(render_view(code, lesion, 0, 48))
            view.save(root / name / f"{name}_{lesion}.png")
    return root


def rows(**diagnoses: int) -> list[InspectedImage]:
    return [
        InspectedImage(
            image_id=f"{name}{n}",
            lesion_id=f"{name}{n // 2}",
            diagnosis=name,
            location=f"{name}{n}.jpg",
            width=8,
            height=8,
            pixel_sha256=f"{name}{n}",
            copy_of=f"{name}{n}",
            alike=f"{name}{n}",
        )
        for name, count in diagnoses.items()
        for n in range(count)
    ]


# ------------------------------------------------------------------------------ classes


def test_classes_are_counted_by_image_and_lesion_and_rare_ones_joined() -> None:
    assert find_classes(rows(mel=8, melanoma=2, wart=6, rare=2, rarer=4)) == [
        FoundClass("mel", ("mel", "melanoma"), 10, 5),
        FoundClass("other", ("rare", "rarer"), 6, 3),
        FoundClass("wart", ("wart",), 6, 3),
    ]


def test_a_class_that_cannot_be_split_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="rare: 2 lesions in all; a split needs at least 3"):
        find_classes(rows(mel=8, wart=6, rare=4))
    with pytest.raises(DataError, match="there is one class, mel; expected two or more"):
        find_classes(rows(mel=8))


@pytest.mark.parametrize(
    ("names", "asked", "critical"),
    [
        (("Melanoma", "wart"), None, "melanoma"),
        (("benign", "malignant"), None, "malignant"),
        (("wart", "worse thing"), "Worse-Thing", "worse_thing"),
    ],
)
def test_the_critical_class_is_the_one_asked_for_or_melanoma(
    names: tuple[str, ...], asked: str | None, critical: str
) -> None:
    assert choose_critical(find_classes(rows(**dict.fromkeys(names, 8))), asked) == critical


def test_a_critical_class_that_is_not_evident_must_be_named() -> None:
    classes = find_classes(rows(wart=8, worse=8))
    with pytest.raises(UsageError, match=r"classes are wart, worse; expected .* --critical CLASS"):
        choose_critical(classes, None)
    with pytest.raises(UsageError, match=r"expected one of wart, worse\. Did you mean 'worse'"):
        choose_critical(classes, "worst")


@pytest.mark.parametrize("name", ["no", "1", "a: b # c", "'quoted\"", "ä\tö", "x" * 150])
def test_a_task_file_holds_whatever_a_class_is_called(tmp_path: Path, name: str) -> None:
    classes = find_classes(rows(**{"melanoma": 8, name: 8, "on": 6}))
    file = tmp_path / "task.yaml"
    file.write_text(task_text(classes, "melanoma", f"title of {name}", "line\nbreak"))
    task = load_task(file)
    assert task.labels[task.label_index(name)] in task.labels
    assert task.critical == "melanoma"
    assert set(task.labels) == {found.label for found in classes}


def test_malignant_classes_are_parted_from_the_rest_unless_all_are() -> None:
    text = task_text(find_classes(rows(mel=8, bcc=8, nv=8)), "mel", "t", "x")
    assert "positive: [bcc, mel]\n" in text
    assert "positive" not in task_text(find_classes(rows(mel=8, bcc=8)), "mel", "t", "x")


def test_a_value_is_written_on_one_line() -> None:
    assert scalar("a\nb") == '"a\\nb"'
    assert scalar(["none"]) == "[none]"


# ------------------------------------------------------------------------------ files


def test_a_recipe_is_written_with_its_task_and_splits_the_images(
    store: Store, clinic: Path, tmp_path: Path
) -> None:
    file = tmp_path / "My clinic.yaml"
    recipe, task_file = write_recipe(store, file, clinic)
    assert task_file == tmp_path / "My clinic_task.yaml"
    assert read_recipe(str(file)) == recipe
    assert (recipe.name, recipe.description) == ("my_clinic", "Images of clinic.")
    assert recipe.gate == (DEFAULT_GATES,)
    task = load_task(task_file)
    assert task.labels == ("melanoma", "naevus", "other", "wart")
    assert task.critical == "melanoma"
    split = read_split(build_data(store, recipe, "split"))
    assert len(split) == 23
    text = file.read_text()
    assert "Images found: melanoma 6, naevus 9, other 3, wart 5." in text


def test_a_packaged_task_is_taken_where_it_fits(store: Store, tmp_path: Path) -> None:
    folder = write_folders(tmp_path / "two", Melanoma=("mel", 5), Nevus=("nv", 5))
    recipe, task_file = write_recipe(store, tmp_path / "two.yaml", folder)
    assert (recipe.data.task, task_file) == ("malignancy", None)
    assert recipe.train.epochs == read_recipe("cnn_binary").train.epochs
    asked, task_file = write_recipe(
        store, tmp_path / "asked.yaml", folder, critical="nevus", like="cnn_7class"
    )
    assert task_file is not None
    assert load_task(asked.data.task).critical == "nevus"


def test_a_recipe_asks_for_no_more_calibration_images_than_training_has_patients(
    store: Store, tmp_path: Path
) -> None:
    folder = write_folders(tmp_path / "images", mel=("mel", 36), nv=("nv", 36))
    table = "image_id,dx,patient_id\n" + "".join(
        f"{name}_{n},{name},{name}{n // 3}\n" for name in ("mel", "nv") for n in range(36)
    )
    (folder / "table.csv").write_text(table)
    recipe, _ = write_recipe(store, tmp_path / "few.yaml", folder)
    split = read_split(build_data(store, recipe, "split"))
    patients = {row.group for row in split if row.subset == "train"}
    assert recipe.calibration.images == len(patients) < 24


def test_nothing_is_left_of_a_recipe_that_would_not_hold(
    store: Store, clinic: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DataError, match="has no label in the task seven_class"):
        write_recipe(store, tmp_path / "new.yaml", clinic, task="seven_class")
    assert sorted(path for path in tmp_path.iterdir() if path != store.workspace) == [
        path for path in before if path != store.workspace
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("there.yaml", "there.yaml exists; expected a new name"),
        ("new.txt", "expected a name that ends in .yaml"),
        ("no/new.yaml", "no does not exist"),
    ],
)
def test_no_file_is_overwritten(
    store: Store, clinic: Path, tmp_path: Path, name: str, words: str
) -> None:
    (tmp_path / "there.yaml").write_text("mine")
    with pytest.raises(UsageError, match=words):
        write_task(store, tmp_path / name, clinic)
    with pytest.raises(UsageError, match=words):
        write_recipe(store, tmp_path / name, clinic)
    assert (tmp_path / "there.yaml").read_text() == "mine"


def test_the_commands_write_what_the_functions_do(
    store: Store, clinic: Path, tmp_path: Path
) -> None:
    def run(*arguments: Any) -> str:
        environment = {"LESIONTK_WORKSPACE": str(store.workspace)}
        result = CliRunner().invoke(
            cli, list(map(str, arguments)), env=environment, catch_exceptions=False
        )
        assert result.exit_code == 0, result.output
        return result.output

    told = run("task", "new", tmp_path / "t.yaml", "--data", clinic, "--critical", "wart")
    assert "naevus: 9 images of 9 lesions" in told
    assert load_task(tmp_path / "t.yaml").critical == "wart"
    told = run(
        "recipe", "new", tmp_path / "r.yaml", "--data", clinic, "--task", tmp_path / "t.yaml"
    )
    assert "next: lesiontk run" in told
    assert read_recipe(str(tmp_path / "r.yaml")).data.task == str(tmp_path / "t.yaml")
    assert "seven_class" in run("task", "list")


def test_a_shown_recipe_is_one_of_the_users_own(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["recipe", "show", "cnn_7class"])
    file = tmp_path / "Mine-2.yaml"
    file.write_text(result.stdout)
    mine, shown = read_recipe(str(file)), read_recipe("cnn_7class")
    assert (mine.name, mine.description) == ("mine_2", "")
    changed = {"name": shown.name, "description": shown.description}
    assert mine.model_copy(update=changed) == shown
    file.write_text("name: my_name\ndescription: My own.\n" + result.stdout)
    mine = read_recipe(str(file))
    assert (mine.name, mine.description) == ("my_name", "My own.")
