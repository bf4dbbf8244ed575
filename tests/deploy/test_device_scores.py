"""What a board measures of itself: scores on labelled images, raw latencies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, confusion_matrix

from lesiontk.backends.stamp import stamp
from lesiontk.data.synthetic.dataset import render_view
from lesiontk.data.tasks import load_task
from lesiontk.deploy.runner.labelled_folder import TableError, read_labelled_folder
from lesiontk.deploy.runner.machine import describe_machine, peak_memory_bytes
from lesiontk.deploy.runner.scores import score, share
from lesiontk.files.hashing import hash_file
from lesiontk.workflow.predict import predict_pictures
from tests.backends.assessments import KNOWN
from tests.deploy.bundles import ENGINES, call_runner, make_bundle, read_contract

LABELS = load_task("seven_class").labels


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a frozen threshold."""
    folder = tmp_path_factory.mktemp("stamped")
    stamp(ENGINES / "tflite_int8.tflite", KNOWN, folder / "tflite_int8.tflite")
    return make_bundle(folder / "bundle", folder / "tflite_int8.tflite", "linux-x86-64")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    lines = ["image,label,lesion_id"]
    for number, label in enumerate(LABELS * 2):
        path = folder / label / f"{label}_{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(render_view(label, number, 0, 160)[:140]).save(path)
        lines.append(f"{path.stem},{label},L{number % 7}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def run_json(bundle: Path, *words: str, code: int = 0) -> dict[str, Any]:
    done = call_runner(bundle, *words, "--json")
    assert done.returncode == code, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_it_evaluates_as_the_toolkit_predicts(bundle: Path, images: Path) -> None:
    found = run_json(bundle, "evaluate", str(images), str(images / "labels.csv"))
    paths = [images / p["truth"] / f"{p['image']}.png" for p in found["predictions"]]
    desktop = predict_pictures(bundle / "tflite_int8.tflite", paths).predictions
    truth = [LABELS.index(p["truth"]) for p in found["predictions"]]
    called = [LABELS.index(p.label) for p in desktop]
    scores = found["scores"]
    assert found["n"] == len(truth) == 14
    assert scores["confusion"] == confusion_matrix(truth, called, labels=range(7)).tolist()
    assert scores["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, called))
    point = found["operating_point"]
    ill = [LABELS[index] in point["positive"] for index in truth]
    hits = sum(
        bool(entry.positive) for entry, positive in zip(desktop, ill, strict=True) if positive
    )
    assert (scores["sensitivity"]["hits"], scores["sensitivity"]["n"]) == (hits, sum(ill))
    said = call_runner(bundle, "evaluate", str(images), str(images / "labels.csv")).stdout
    assert "balanced accuracy" in said
    assert "sensitivity of akiec + bcc + mel at 0.1235: " in said
    assert "n = 6" in said


def test_missing_and_broken_images_are_failures_and_not_scored(bundle: Path, images: Path) -> None:
    table = images.parent / "more.csv"
    broken = images / "broken.jpg"
    broken.write_bytes(b"text named .jpg")
    more = "broken,nv,L1\nnowhere,nv,L2\n"
    table.write_text((images / "labels.csv").read_text() + more)
    found = run_json(bundle, "evaluate", str(images), str(table), code=2)
    broken.unlink()
    assert found["n"] == 14
    assert [entry["image"] for entry in found["failures"]] == ["broken", "nowhere"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("picture,label\na,mel\n", "has the columns picture, label; expected one of image, "),
        ("image,kind\na,mel\n", "has the columns image, kind; expected one of label, dx"),
        ("image,label\na,mell\n", "received 'mell'; expected one of .* Did you mean 'mel'"),
        ("image,label\nmel_4,mel\nmel_4,mel\n", "line 3: mel_4 is a duplicate"),
        ("image,label\nx,mel\n", "lists 1 images; none is in"),
        ("", "has no rows"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(
    content: str, said: str, images: Path, tmp_path: Path
) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(content)
    with pytest.raises(TableError, match=said):
        read_labelled_folder(images, table, LABELS)


def test_an_interval_is_wilsons() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263 and 0 of 20.
    found = share(81, 263)
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert (share(0, 20).low, share(0, 20).high) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert share(0, 0).value is None


def test_labels_without_images_count_nowhere() -> None:
    found = score([0, 0, 1], [0, 1, 1], [True, False, True], ["a", "b", "c"], ["a"])
    assert found.balanced_accuracy == 0.75
    assert found.sensitivities["c"].value is None
    assert found.sensitivity is not None
    assert found.specificity is not None
    assert (found.sensitivity.hits, found.specificity.hits) == (1, 0)


def check_samples(found: dict[str, Any], n: int) -> None:
    samples: Sequence[float] = found["latency_ms"]["samples"]
    assert len(samples) == found["latency_ms"]["n"] == n
    assert min(samples) > 0
    assert found["latency_ms"]["p90"] == pytest.approx(np.percentile(samples, 90))


def test_bench_returns_raw_samples_and_scores(bundle: Path, images: Path) -> None:
    options = ["--rounds", "7", "--warmup", "2", "--device", "ward 3"]
    labelled = ["--images", str(images), "--labels", str(images / "labels.csv")]
    found = run_json(bundle, "bench", *options, *labelled)
    check_samples(found, 7)
    assert found["device"] == "ward 3"
    assert found["bundle_sha256"] == hash_file(bundle / "SHA256SUMS")
    assert found["engine"] == read_contract(bundle)["engine"]
    assert found["engine"]["content_sha256"] == hash_file(ENGINES / "tflite_int8.tflite")
    assert found["engine_bytes"] == (bundle / "tflite_int8.tflite").stat().st_size
    assert found["answers"]["agreement"] == 1.0
    assert found["evaluation"]["n"] == 14
    said = call_runner(bundle, "bench", "--rounds", "3").stdout
    assert "n = 3" in said
    assert "outputs: as expected" in said


def test_bench_refuses_what_it_cannot_measure(bundle: Path, images: Path) -> None:
    done = call_runner(bundle, "bench", "--images", str(images))
    assert done.returncode == 2
    assert "received one of --images and --labels" in done.stderr
    done = call_runner(bundle, "bench", "--rounds", "0")
    assert done.returncode == 2
    assert "received '0'; expected a whole number from 1" in done.stderr


def test_a_board_is_called_by_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd asimddp\n")
    (tmp_path / "model").write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    found = describe_machine(tmp_path / "cpuinfo", tmp_path / "model")
    assert found.processor == "NVIDIA Jetson Orin Nano Developer Kit"
    assert found.int8_features == ("asimddp",)
    (tmp_path / "status").write_text("VmPeak:\t 99 kB\nVmHWM:\t  42 kB\n")
    assert peak_memory_bytes(tmp_path / "status") == 42 * 1024
    assert peak_memory_bytes(tmp_path / "none") is None
