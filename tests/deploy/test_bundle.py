"""Bundles: whole, running from their folder alone, and honest about what is wrong with them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from lesiontk.backends import open_engine
from lesiontk.backends.backend import dump_spec
from lesiontk.backends.stamp import stamp
from lesiontk.backends.tflite.graph import embed_spec
from lesiontk.backends.tflite.metadata import embed_metadata
from lesiontk.cli.main import cli
from lesiontk.data.synthetic.dataset import render_view
from lesiontk.deploy import BUNDLE_TARGETS, find_bundle_target
from lesiontk.deploy.bundle import VIEWS, check_destination, hash_content, make_golden_images
from lesiontk.deploy.card import render_bundle_card
from lesiontk.errors import GateFailedError, MissingRequirementError, UsageError
from lesiontk.evaluate.temperature import apply_temperature
from lesiontk.records import EngineSpec, Preprocessing
from lesiontk.stages.bundle import atomic_folder, write_bundle_of_file
from lesiontk.workflow.predict import predict_pictures
from tests.backends.assessments import KNOWN
from tests.deploy.bundles import (
    ENGINES,
    call_runner,
    change_contract,
    make_bundle,
    read_contract,
    reseal,
)

CPU_BUNDLES = [
    ("linux-arm64", "tflite_int8.tflite"),
    ("linux-arm64", "onnx_int8.onnx"),
    ("linux-x86-64", "tflite_int8.tflite"),
    ("android", "tflite_int8.tflite"),
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle"), "tflite_int8.tflite")


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(render_view("mel", 3, 0, 200)[:150]).save(path)
    return path


@pytest.mark.parametrize(("target", "engine"), CPU_BUNDLES)
def test_it_tests_itself_and_predicts_as_lesiontk_does(
    target: str, engine: str, tmp_path: Path, picture: Path
) -> None:
    folder = make_bundle(tmp_path / "bundle", engine, target)
    done = call_runner(folder, "self-test", "--json", "--rounds", "3")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["answers"]["n"] == 16 + 7 * VIEWS
    assert found["answers"]["agreement"] == 1.0
    assert found["pictures"] == {"n": 3, "differ": [], "as_expected": True}
    assert found["latency_ms"]["n"] == len(found["latency_ms"]["samples"]) == 3
    done = call_runner(folder, "predict", "--json", str(picture))
    assert done.returncode == 0, done.stderr
    (mine,) = predict_pictures(ENGINES / engine, [picture]).predictions
    (theirs,) = json.loads(done.stdout)["predictions"]
    assert theirs["label"] == mine.label
    assert theirs["probabilities"] == pytest.approx(mine.probabilities, abs=2e-6)


@pytest.mark.parametrize("name", BUNDLE_TARGETS)
def test_every_target_says_what_it_runs(name: str) -> None:
    target = find_bundle_target(name)
    assert target.name == name
    assert target.choose(["keras:float32", *reversed(target.engines)]) == target.engines[0]
    with pytest.raises(
        UsageError, match=f"received keras:float32. Make one with .* {target.engines[0]}"
    ):
        target.choose(["keras:float32"])


def test_an_unknown_target_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'android'"):
        find_bundle_target("andriod")


def test_the_checksums_cover_every_file(bundle: Path) -> None:
    lines = (bundle / "SHA256SUMS").read_text().splitlines()
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    files = {p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file()}
    assert set(listed) == files - {"SHA256SUMS"}
    for name, digest in listed.items():
        assert hashlib.sha256((bundle / name).read_bytes()).hexdigest() == digest


def test_the_same_engine_gives_the_same_bundle(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lesiontk.deploy.bundle.make_golden_images", make_golden_images)  # anew
    again = make_bundle(tmp_path / "again", "tflite_int8.tflite")
    assert (bundle / "SHA256SUMS").read_text() == (again / "SHA256SUMS").read_text()


def test_golden_answers_differ_from_image_to_image(bundle: Path) -> None:
    with np.load(bundle / "golden.npz") as golden:
        answers: NDArray[np.float32] = golden["probabilities"]
    assert len(set(answers.argmax(axis=1))) >= 3
    assert np.ptp(answers, axis=0).max() > 0.5


def test_golden_images_are_prepared_as_the_engine_was_trained() -> None:
    plain = make_golden_images(Preprocessing(32))
    enhanced = make_golden_images(Preprocessing(32, enhance=("colour_sharpening",)))
    assert (plain[:16] == enhanced[:16]).all()  # pure forms are asked about as they are
    assert (plain[16:] != enhanced[16:]).any(axis=(1, 2, 3)).all()


# ---------------------------------------------------------------------- damage


def test_a_changed_file_is_named(copy: Path) -> None:
    (copy / "crop.py").write_text((copy / "crop.py").read_text().replace("BILINEAR", "NEAREST"))
    reseal(copy)  # changed code is not run
    with (copy / "MODEL_CARD.md").open("a") as stream:
        stream.write("This engine finds every melanoma.")
    done = call_runner(copy, "self-test", "--rounds", "0")
    assert done.returncode == 1
    assert "files: MODEL_CARD.md was changed\n" in done.stdout
    assert "golden/tall.png, golden/wide.png differ" in done.stdout
    assert "NOT AS EXPECTED" in done.stdout


def test_another_engine_with_the_same_name_is_found_out(copy: Path) -> None:
    """As a board that computes wrongly would be: the answers are others."""
    with np.load(copy / "golden.npz") as golden:
        images, answers = golden["images"], golden["probabilities"]
    np.savez(copy / "golden.npz", images=images, probabilities=np.roll(answers, 1, axis=1))
    found = json.loads(call_runner(copy, "self-test", "--json", "--rounds", "0").stdout)
    assert found["answers"]["as_expected"] is False
    assert found["answers"]["agreement"] == 0.0
    assert found["files"]["damaged"] == ["golden.npz was changed"]


def test_a_small_drift_beyond_the_limit_fails(copy: Path) -> None:
    contract = read_contract(copy)
    with np.load(copy / "golden.npz") as golden:
        images, answers = golden["images"], golden["probabilities"]
    drift = 1.1 * contract["golden"]["max_mean_drift"]
    np.savez(copy / "golden.npz", images=images, probabilities=answers + np.float32(drift))
    found = json.loads(call_runner(copy, "self-test", "--json", "--rounds", "0").stdout)
    assert found["answers"]["agreement"] == 1.0
    assert found["answers"]["as_expected"] is False


def test_a_missing_runtime_or_package_exits_with_3(bundle: Path) -> None:
    done = call_runner(bundle, "self-test", without=("ai_edge_litert",))
    assert done.returncode == 3
    assert "missing requirement: LiteRT" in done.stderr
    assert "pip install ai-edge-litert" in done.stderr
    done = call_runner(bundle, "self-test", without=("numpy",))
    assert done.returncode == 3
    assert "pip install -r requirements.txt" in done.stderr


def test_without_pillow_all_but_pictures_is_tested(bundle: Path, picture: Path) -> None:
    done = call_runner(bundle, "self-test", "--json", "--rounds", "1", without=("PIL",))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["answers"]["agreement"] == 1.0
    assert found["pillow"] is None
    assert found["pictures"]["as_expected"] is None
    done = call_runner(bundle, "self-test", "--rounds", "0", without=("PIL",))
    assert "pictures: not checked, and `predict` cannot run: Pillow" in done.stdout
    done = call_runner(bundle, "predict", str(picture), without=("PIL",))
    assert (done.returncode, done.stdout) == (3, "")
    assert "missing requirement: Pillow 9.1 or later" in done.stderr
    assert "pip install 'Pillow>=9.1'" in done.stderr


def test_a_broken_picture_does_not_stop_the_others(
    bundle: Path, picture: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    done = call_runner(bundle, "predict", str(tmp_path / "broken.jpg"), str(picture))
    assert done.returncode == 2
    assert "broken.jpg: received 10 bytes beginning with" in done.stdout
    assert f"{picture}: " in done.stdout
    assert "not a medical device" in done.stdout
    done = call_runner(bundle, "predict", str(tmp_path / "nowhere.jpg"))
    assert done.returncode == 2
    assert "No such file" in done.stdout


def test_names_are_shown_on_one_line_and_on_every_terminal(
    bundle: Path, picture: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "ü\nmel 0.999: positive.jpg"
    shutil.copy(picture, odd)
    (tmp_path / "no\nimage.jpg").write_text("text")
    words = [sys.executable, str(bundle / "run.py"), "predict", str(odd)]
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    shown = subprocess.run(
        [*words, str(tmp_path / "no\nimage.jpg")],
        capture_output=True, text=True, check=False, env=ascii_only,
    )  # fmt: skip
    lines = shown.stdout.splitlines()
    assert lines[0].startswith(f"{tmp_path}/\\xfc\\nmel 0.999: positive.jpg: ")
    assert any(line.startswith(f"error: {tmp_path}/no\\nimage.jpg: received 4") for line in lines)


def test_an_output_that_is_full_is_an_error(bundle: Path, picture: Path) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, str(bundle / "run.py"), "predict", str(picture)],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert ended.returncode == 2
    assert "error: the output cannot be written: [Errno 28]" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("threads", ["0", "-2", "two"])
def test_threads_are_a_whole_number_from_1(bundle: Path, threads: str) -> None:
    ended = call_runner(bundle, "self-test", "--threads", threads)
    assert ended.returncode == 2
    assert f"--threads: received '{threads}'; expected a whole number from 1" in ended.stderr


def test_a_missing_contract_exits_with_2(copy: Path) -> None:
    (copy / "bundle.json").unlink()
    done = call_runner(copy, "self-test")
    assert done.returncode == 2
    assert "bundle.json" in done.stderr


# -------------------------------------------------------------------- contents


def test_the_decision_is_made_at_the_frozen_threshold(copy: Path, picture: Path) -> None:
    for threshold, said in ((0.0, "positive"), (1.0, "negative")):
        point = {"rule": "youden", "threshold": threshold, "positive": ["mel", "bcc"]}
        change_contract(copy, {"operating_point": point})
        text = call_runner(copy, "predict", str(picture)).stdout
        assert f"threshold {threshold:.3f}: {said}" in text
    (entry,) = json.loads(call_runner(copy, "predict", "--json", str(picture)).stdout)[
        "predictions"
    ]
    both = entry["probabilities"]["mel"] + entry["probabilities"]["bcc"]
    assert entry["score"] == pytest.approx(both, abs=2e-6)
    assert entry["positive"] is False


def test_confidence_is_the_probability_at_the_frozen_temperature(copy: Path, picture: Path) -> None:
    def predict(temperature: float | None) -> dict[str, Any]:
        change_contract(copy, {"temperature": temperature})
        done = call_runner(copy, "predict", "--json", str(picture))
        (entry,) = json.loads(done.stdout)["predictions"]
        return dict(entry)

    plain = predict(1.0)
    values = np.array([list(plain["probabilities"].values())])
    assert plain["confidence"] == pytest.approx(values.max(), abs=1e-5)
    cooler = predict(2.0)
    assert cooler["confidence"] == pytest.approx(apply_temperature(values, 2.0).max(), abs=1e-4)
    assert cooler["label"] == plain["label"]
    assert "confidence" not in predict(None)


def test_enhancements_travel_with_the_engine(tmp_path: Path, picture: Path) -> None:
    """With the filters the pictures come out as lesiontk prepares them; without, otherwise."""
    with open_engine(ENGINES / "tflite_int8.tflite") as engine:
        spec = engine.spec
    filters = ("hair_removal", "noise_reduction", "edge_enhancement", "colour_sharpening")
    enhanced = replace(spec, preprocessing=replace(spec.preprocessing, enhance=filters))
    content = (ENGINES / "tflite_int8.tflite").read_bytes()
    path = tmp_path / "tflite_int8.tflite"
    path.write_bytes(embed_metadata(embed_spec(content, dump_spec(enhanced)), enhanced))
    folder = make_bundle(tmp_path / "bundle", path)
    assert "opencv" in (folder / "requirements.txt").read_text()
    done = call_runner(folder, "self-test", "--json", "--rounds", "0")
    assert done.returncode == 0, done.stderr + done.stdout
    (theirs,) = json.loads(call_runner(folder, "predict", "--json", str(picture)).stdout)[
        "predictions"
    ]
    (mine,) = predict_pictures(path, [picture]).predictions
    assert theirs["probabilities"] == pytest.approx(mine.probabilities, abs=2e-6)
    contract = read_contract(folder)
    plain = {**contract["preprocessing"], "filters": []}
    change_contract(folder, {"preprocessing": plain})
    found = json.loads(call_runner(folder, "self-test", "--json", "--rounds", "0").stdout)
    assert len(found["pictures"]["differ"]) == 3


def test_android_refuses_an_onnx_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"android runs tflite:int8, .* received onnx:int8"):
        make_bundle(tmp_path / "bundle", "onnx_int8.onnx", "android")


def test_the_full_disk_is_that_of_the_bundle(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with (
        pytest.raises(MissingRequirementError, match=f"the disk of {tmp_path} is full"),
        atomic_folder(tmp_path / "out"),
    ):
        raise full
    assert not list(tmp_path.iterdir())


def test_nothing_is_mixed_into_a_folder_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("all my work")
    with pytest.raises(UsageError, match="exists; expected a new or empty folder"):
        check_destination(tmp_path)
    options = [
        "bundle",
        str(ENGINES / "tflite_int8.tflite"),
        "--research-override",
        "--target",
        "android",
    ]
    done = CliRunner().invoke(cli, [*options, "--out", str(tmp_path)])
    assert isinstance(done.exception, UsageError)
    done = CliRunner().invoke(cli, options)
    assert "is a file outside the workspace; expected --out DIR" in str(done.exception)
    done = CliRunner().invoke(cli, [*options, "--out", str(tmp_path / "new")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "new" / "run.py").is_file()


# ------------------------------------------------------------------ assessment


@pytest.fixture
def stamped(tmp_path: Path) -> Path:
    """The published engine with what its evaluation froze and found inside."""
    path = tmp_path / "stamped" / "tflite_int8.tflite"
    path.parent.mkdir()
    stamp(ENGINES / path.name, KNOWN, path)
    return path


def test_a_file_alone_suffices_for_a_bundle(stamped: Path, tmp_path: Path, picture: Path) -> None:
    folder = make_bundle(tmp_path / "bundle", stamped)
    contract = read_contract(folder)
    assert contract["operating_point"] == {
        name: KNOWN.operating_point.to_document()[name]
        for name in ("rule", "threshold", "positive")
    }
    assert contract["temperature"] == KNOWN.temperature
    assert (folder / stamped.name).read_bytes() == stamped.read_bytes()
    card = (folder / "MODEL_CARD.md").read_text()
    assert hashlib.sha256(stamped.read_bytes()).hexdigest() in card
    assert "at least 0.1235 (chosen by: youden, 100 validation images)" in card
    assert "n = 1504 images of 1116 lesions" in card
    assert "| sensitivity of akiec + bcc + mel | 290 | 0.900 [0.800, 1.000] |" in card
    assert "decision at 0.1235" in (folder / "README.md").read_text()
    assert "No threshold" not in (folder / "README.md").read_text()


@pytest.mark.parametrize("threshold", [None, 0.0, 1.0])
def test_the_desktop_decides_as_the_device_does(
    threshold: float | None, stamped: Path, tmp_path: Path, picture: Path
) -> None:
    folder = tmp_path / "bundle"
    options = [] if threshold is None else ["--threshold", str(threshold)]
    made = [
        "bundle",
        str(stamped),
        "--research-override",
        "--target",
        "linux-arm64",
        "--out",
        str(folder),
    ]
    assert CliRunner().invoke(cli, [*made, *options]).exit_code == 0
    device = json.loads(call_runner(folder, "predict", "--json", str(picture)).stdout)
    done = CliRunner().invoke(cli, ["predict", str(stamped), str(picture), "--json", *options])
    desktop = json.loads(done.stdout)
    assert desktop["predictions"] == device["predictions"]
    (said,) = desktop["predictions"]
    assert set(said) == {"image", "label", "probabilities", "confidence", "score", "positive"}
    if threshold is not None:
        assert said["positive"] is (said["score"] >= threshold)
        assert desktop["operating_point"]["rule"] == "given"
    # The file of the bundle, which is the engine with its user's threshold, says the same again.
    inside = ["predict", str(folder / stamped.name), str(picture), "--json"]
    assert json.loads(CliRunner().invoke(cli, inside).stdout)["predictions"] == [said]


def test_predict_shows_the_decision_to_people(stamped: Path, picture: Path) -> None:
    done = CliRunner().invoke(cli, ["predict", str(stamped), str(picture)])
    assert "akiec + bcc + mel" in done.stdout
    assert "at 0.1235" in done.stdout
    assert "note:" not in done.output
    done = CliRunner().invoke(cli, ["predict", str(ENGINES / stamped.name), str(picture)])
    assert "note: the engine contains no threshold, so there is no decision" in done.output


def test_a_bundle_without_a_threshold_promises_none(bundle: Path, picture: Path) -> None:
    readme, card = (bundle / "README.md").read_text(), (bundle / "MODEL_CARD.md").read_text()
    assert "No threshold was frozen" in readme
    assert "decision at" not in readme
    assert "threshold, tolerances" not in readme
    assert "This file contains no evaluation" in card
    assert "## Intended use" in card
    assert "Out of scope: decisions about a person" in card
    assert "without a decision" in card


def test_an_answer_names_what_gave_it(bundle: Path, picture: Path) -> None:
    call = call_runner(bundle, "predict", str(picture), "--json")
    answer = json.loads(call.stdout)
    sums = (bundle / "SHA256SUMS").read_bytes()
    assert answer["bundle_sha256"] == hashlib.sha256(sums).hexdigest()
    assert answer["engine_sha256"] == hash_content(bundle / "tflite_int8.tflite")


def test_an_engine_without_known_gates_is_for_research_alone(
    stamped: Path, tmp_path: Path, picture: Path
) -> None:
    words = ["bundle", str(stamped), "--target", "linux-arm64", "--out", str(tmp_path / "b")]
    refused = CliRunner().invoke(cli, words)
    assert isinstance(refused.exception, GateFailedError)
    assert "was not tested by gates" in str(refused.exception)
    assert "--research-override" in str(refused.exception)
    assert not (tmp_path / "b").exists()
    assert CliRunner().invoke(cli, [*words, "--research-override"]).exit_code == 0
    call = call_runner(tmp_path / "b", "predict", str(picture))
    assert "Research override: the engine was not tested by gates." in call.stdout


def test_a_threshold_of_ones_own_is_told_apart(stamped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    target = find_bundle_target("linux-arm64")
    write_bundle_of_file(folder, stamped, target, threshold=0.4)
    card = (folder / "MODEL_CARD.md").read_text()
    assert "at least 0.4000 (chosen by:" in card
    assert "Sensitivity and specificity at this threshold were not measured" in card
    assert "sensitivity of" not in card


@pytest.mark.parametrize("known", [True, False])
def test_each_figure_of_a_card_stands_beside_the_images_that_it_is_of(known: bool) -> None:
    spec = EngineSpec(("a", "b"), Preprocessing(8), "t", "tflite", "int8", "probe", "5" * 64)
    assert KNOWN.test is not None
    test = KNOWN.test if known else replace(KNOWN.test, images={})
    card = render_bundle_card(spec, "", replace(KNOWN, test=test), "probe.tflite", "6" * 64)
    assert f"| recall[df] | {18 if known else '–'} | " in card
    assert f"| sensitivity of akiec + bcc + mel | {290 if known else '–'} | 0.900 " in card
    assert "| accuracy | 1504 | 0.800 [0.700, 0.900] |" in card


def test_a_card_says_so_if_the_engine_was_not_evaluated() -> None:
    spec = EngineSpec(("a", "b"), Preprocessing(8), "t", "tflite", "int8", "probe", "5" * 64)
    card = render_bundle_card(spec, "", None, "probe.tflite", "6" * 64)
    assert "contains no evaluation" in card
    assert f"`probe.tflite`, SHA-256 `{'6' * 64}`" in card
    assert "must not be used for diagnosis" in card
