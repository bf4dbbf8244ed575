"""``lesiontk calibration``: a list is drawn, shown and proven; an offender fails the check."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from lesiontk.calibration.draw import list_names, read_list_rows
from lesiontk.cli.main import cli
from lesiontk.errors import DataError, GateFailedError, UsageError
from lesiontk.recipe import parse_recipe
from lesiontk.stages.calibrate import COLUMNS
from lesiontk.store import Store
from lesiontk.workflow.calibration_lists import check_list, describe_list, draw_list
from lesiontk.workflow.plan import plan_recipe
from lesiontk.workflow.runner import build_step
from tests.loose_modules import load_benchmark

Run = Callable[..., str]
DRAW = ("calibration", "draw", "cnn_7class", "--set", "data.image_size=32", "--images", "14")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("desk")


@pytest.fixture
def run(desk: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command that must succeed, on one workspace for the module."""
    monkeypatch.chdir(desk)

    def run(*arguments: str) -> str:
        environment = {"LESIONTK_WORKSPACE": "workspace"}
        result = CliRunner().invoke(cli, arguments, env=environment, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


@pytest.fixture
def drawn(run: Run, synthetic_folder: Path) -> dict[str, Any]:
    """A list of fourteen images in ``calibration.csv``."""
    document: dict[str, Any] = json.loads(run(*DRAW, "--data", str(synthetic_folder), "--json"))
    return document


def test_a_list_has_ids_hashes_sites_and_brightness(drawn: dict[str, Any], desk: Path) -> None:
    with (desk / drawn["file"]).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 14
    assert list(rows[0]) == [
        "image_id", "lesion_id", "label", "site", "luma", "brightness", "pixel_sha256",
    ]  # fmt: skip
    assert {row["image_id"]: row["pixel_sha256"] for row in rows} == drawn["pixel_sha256"]
    assert len({row["site"] for row in rows}) == len(drawn["images_by_site"]) > 4
    assert min(drawn["images_by_brightness"].values()) >= 2
    told = yaml.safe_load((desk / "calibration.yaml").read_text())
    assert (told["draw"], told["cover"], told["seed"]) == ("balanced", ["site", "brightness"], 7)
    assert told["split_hash"] == drawn["split_hash"]
    assert "pixel_sha256" not in told


def test_a_run_takes_the_very_list(
    drawn: dict[str, Any], desk: Path, synthetic_folder: Path
) -> None:
    recipe = parse_recipe(
        {
            "name": "probe",
            "data": {"path": str(synthetic_folder), "image_size": 32},
            "calibration": {"images": 14},
        }
    )
    store = Store(desk / "workspace", threads=1)
    artefact = build_step(plan_recipe(recipe), "calibration", store, {})
    assert artefact.name == drawn["artefact"]


def test_without_a_recipe_the_images_prepared_last_are_taken(
    drawn: dict[str, Any], run: Run
) -> None:
    text = run("calibration", "draw", "--images", "9", "--draw", "natural", "--out", "nine.csv")
    assert "9 training images, natural by class" in text
    assert "nine.csv" in text


def test_another_list_is_not_written_over(drawn: dict[str, Any], run: Run, desk: Path) -> None:
    run("calibration", "draw", "--images", "14")  # the same list may be written again
    with pytest.raises(UsageError, match=r"contains another list.*--out"):
        run("calibration", "draw", "--images", "10")


def test_show_counts_by_class_site_and_brightness(drawn: dict[str, Any], run: Run) -> None:
    document = json.loads(run("calibration", "show", "calibration.csv", "--json"))
    assert document["images"] == 14
    composition = document["composition"]
    assert list(composition["brightness"]) == ["darkest", "dark", "bright", "brightest"]
    for axis in ("label", "site", "brightness"):
        assert sum(sum(counts.values()) for counts in composition[axis].values()) == 14
    text = run("calibration", "show", drawn["artefact"])
    assert all(word in text for word in ("darkest", "akiec", "drawn: balanced"))


def test_a_shipped_list_is_shown(run: Run) -> None:
    text = run("calibration", "show", "cnn_7class")
    assert all(word in text for word in ("210 images", "lower extremity", "brightest"))


def test_a_list_says_what_it_does_not_tell(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("image_id,lesion_id,label\nISIC_1,HAM_1,mel\nISIC_2,HAM_2,nv\n")
    assert "does not contain site nor brightness" in run("calibration", "show", str(path))


def test_a_shipped_list_passes_the_shipped_split(run: Run) -> None:
    text = run("calibration", "check", "cnn_7class", "--split", "7c9837e2eefb")
    assert "210 training images of 7c9837e2eefb" in text
    assert "pixels were not compared" in text


def test_a_shipped_list_finds_the_shipped_split_that_it_was_drawn_from(
    drawn: dict[str, Any], run: Run, tmp_path: Path
) -> None:
    """In a fresh workspace, and in one that has another split."""
    for options in (("--workspace", str(tmp_path)), ()):
        text = run("calibration", "check", "cnn_7class", *options)
        assert "210 training images of 7c9837e2eefb" in text
        assert "pixels were not compared" in text
        assert "--data DIR" in text


def test_check_compares_the_pixels_of_images_at_hand(
    drawn: dict[str, Any], run: Run, desk: Path, synthetic_folder: Path
) -> None:
    split = Store(desk / "workspace", threads=1).resolve("latest", "split")
    with split.file("split.csv").open(newline="") as stream:
        rows = [
            f"{row['image_id']},{row['group']},{row['subset']}\n" for row in csv.DictReader(stream)
        ]
    (desk / "bare.csv").write_text("image_id,lesion_id,subset\n" + "".join(rows))
    call = ("calibration", "check", "calibration.csv", "--split", "bare.csv")
    assert "pixels were not compared" in run(*call)
    text = run(*call, "--data", str(synthetic_folder))
    assert "by id, lesion and pixels" in text
    assert "14 have the pixels that the list was drawn with" in text


def test_check_fails_for_an_image_whose_pixels_changed(
    drawn: dict[str, Any], desk: Path, synthetic_folder: Path
) -> None:
    image_id, digest = next(iter(drawn["pixel_sha256"].items()))
    text = (desk / "calibration.csv").read_text().replace(digest, "0" * 64)
    (desk / "changed.csv").write_text(text)
    store = Store(desk / "workspace", threads=1)
    with pytest.raises(GateFailedError, match=f"{image_id} has other pixels"):
        check_list(store, str(desk / "changed.csv"), data=synthetic_folder)


def test_check_wants_the_images_of_the_split(desk: Path, synthetic_folder: Path) -> None:
    store = Store(desk / "workspace", threads=1)
    with pytest.raises(DataError, match=r"10015 of the split's 10015 images are not in .* \(ISIC_"):
        check_list(store, "cnn_7class", data=synthetic_folder)


@pytest.mark.parametrize("name", list_names())
def test_a_shipped_list_has_a_hash_of_every_image(name: str) -> None:
    rows = read_list_rows(name)
    assert list(rows[0]) == [*COLUMNS, "pixel_sha256"]
    assert all(re.fullmatch("[0-9a-f]{64}", row["pixel_sha256"]) for row in rows)


def test_a_list_is_published_as_it_was_drawn(
    drawn: dict[str, Any], desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publishing = load_benchmark("publish")
    monkeypatch.setattr(publishing, "HERE", tmp_path / "benchmarks")
    published = tmp_path / "calibration" / "probe.csv"
    published.parent.mkdir()
    published.write_text("an older list")
    store = Store(desk / "workspace", threads=1)
    publishing.publish_calibration("probe", store.resolve(drawn["artefact"]))
    for suffix in (".csv", ".yaml"):
        drawn_file = desk / f"calibration{suffix}"
        assert published.with_suffix(suffix).read_text() == drawn_file.read_text()


def test_check_proves_a_drawn_list(drawn: dict[str, Any], run: Run) -> None:
    document = json.loads(run("calibration", "check", "calibration.csv", "--json"))
    assert document["pixels_compared"]
    assert document["pixels_confirmed"] == document["images"] == 14
    assert document["disjoint_from"] == drawn["disjoint_from"]


def test_check_fails_for_a_test_image_and_names_it(
    drawn: dict[str, Any], desk: Path, synthetic_folder: Path
) -> None:
    store = Store(desk / "workspace", threads=1)
    split = store.resolve("latest", "split")
    with split.file("split.csv").open(newline="") as stream:
        stranger = next(
            row["image_id"] for row in csv.DictReader(stream) if row["subset"] == "test"
        )
    (desk / "bad.csv").write_text(f"image_id\n{stranger}\n")
    with pytest.raises(
        GateFailedError, match=rf"bad.csv does not match {split.name}: .*{stranger}"
    ):
        check_list(store, str(desk / "bad.csv"))
    assert GateFailedError.exit_code == 1


def test_a_list_that_does_not_exist_is_bad_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="path of a CSV file"):
        describe_list(Store(tmp_path), "missing.csv")
    with pytest.raises(UsageError, match="no images in"):
        draw_list(Store(tmp_path), None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [1", "is not valid YAML"),
        ("- a\n", "is not the record of a list's draw"),
        ("split_hash: 7\n", "is not the record of a list's draw"),
    ],
)
def test_a_bad_yaml_beside_a_list_is_an_error_that_names_it(
    tmp_path: Path, text: str, reason: str
) -> None:
    (tmp_path / "mine.csv").write_text("image_id\nISIC_1\n")
    assert describe_list(Store(tmp_path), str(tmp_path / "mine.csv")).drawn is None
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(DataError, match=rf"mine\.yaml .*{reason}"):
        describe_list(Store(tmp_path), str(tmp_path / "mine.csv"))
