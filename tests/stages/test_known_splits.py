"""Images that an engine was trained on are known, and not judged by accident."""

from __future__ import annotations

from pathlib import Path

import pytest

from lesiontk.data.synthetic.dataset import write_synthetic_dataset
from lesiontk.errors import DataError
from lesiontk.evaluate.evaluation import ExternalEvaluation
from lesiontk.progress import NoProgress
from lesiontk.recipe import EvaluateRule
from lesiontk.records import EngineSpec, ImageRecord
from lesiontk.stages.known_splits import KnownSplit, find_split
from lesiontk.workflow import evaluate as evaluation
from lesiontk.workflow.evaluate import evaluate_folder

ROOT = Path(__file__).parents[2]
ENGINE = ROOT / "benchmarks" / "engines" / "cnn_7class" / "onnx_int8.onnx"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_synthetic_dataset(tmp_path / "data", lesions=14, image_size=32, seed=1)
    return tmp_path / "data"


def evaluate(folder: Path, **options: bool) -> ExternalEvaluation:
    rule = EvaluateRule(resamples=100)
    return evaluate_folder(ENGINE, folder, None, rule, NoProgress(), **options)


def pretend(monkeypatch: pytest.MonkeyPatch, folder: Path, share: float) -> int:
    """Let a share of the folder's images be training images; returns how many there are."""
    ids = sorted(path.stem for path in folder.glob("*/*.jpg"))
    seen = ids[: round(share * len(ids))]
    subsets = {image: "train" if image in seen else "test" for image in ids}
    monkeypatch.setattr(
        evaluation, "find_split", lambda split_hash, splits: KnownSplit(subsets, {})
    )
    return len(ids)


def test_a_split_that_nobody_knows_is_none() -> None:
    assert find_split("0" * 64, []) is None
    assert find_split("", []) is None


def test_strange_images_are_all_judged(folder: Path) -> None:
    found = evaluate(folder)
    assert found.n == len(list(folder.glob("*/*.jpg")))
    assert found.split_known
    assert found.seen_images == {}


def test_the_split_of_a_model_from_elsewhere_does_not_tell_what_it_was_trained_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EngineSpec, "may_have_seen_test", True)
    assert evaluate(folder).split_known is False


def test_training_images_are_left_out_and_counted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = pretend(monkeypatch, folder, 0.5)
    found = evaluate(folder)
    assert found.seen_images == {"train": round(total / 2)}
    assert found.n == total - round(total / 2)


def test_another_picture_of_a_training_lesion_is_known_too() -> None:
    split = KnownSplit({"a": "train"}, {"L1": "train", "L2": "test"})
    assert split.subset_of(ImageRecord("renamed", "nv", "renamed.jpg", "L1")) == "train"
    assert split.subset_of(ImageRecord("renamed", "nv", "renamed.jpg", "L2")) == "test"
    assert split.subset_of(ImageRecord("stranger", "nv", "stranger.jpg")) is None


def test_they_count_where_that_is_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    total = pretend(monkeypatch, folder, 0.5)
    found = evaluate(folder, include_seen=True)
    assert found.n == total
    assert found.seen_included


def test_only_training_images_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, folder, 1.0)
    with pytest.raises(DataError, match="include-seen"):
        evaluate(folder)
    assert evaluate(folder, include_seen=True).n > 0
