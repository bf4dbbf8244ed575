"""A Jetson keeps int8 only if it passes and is shown to be faster, else float16; it says why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom

from lesiontk.backends.backend import dump_spec
from lesiontk.backends.onnx.graph import embed_spec
from lesiontk.backends.onnx.signals import add_signal_outputs
from lesiontk.backends.tensorrt import on_device, plan_cache
from lesiontk.deploy import find_bundle_target
from lesiontk.deploy.bundle import make_golden_images
from lesiontk.deploy.runner import engine_choice
from lesiontk.deploy.runner.command import Call
from lesiontk.deploy.runner.contract import read_bundle
from lesiontk.deploy.runner.integrity import FileCheck
from lesiontk.deploy.runner.serve import open_answer
from lesiontk.errors import DataError
from lesiontk.evaluate.input_checks import (
    ENERGY,
    OUT_OF_DOMAIN,
    STATUSES,
    DomainScore,
    score_domain,
)
from lesiontk.stages.bundle import write_bundle_of_file
from lesiontk.stages.input_checks import write_checks
from tests.backends.tensorrt.conftest import *  # noqa: F403 - the graphs of the back end
from tests.backends.tensorrt.device import Device
from tests.backends.tensorrt.fake_tensorrt import Answer, identify
from tests.backends.tensorrt.graphs import SPEC, open_model, run_outputs
from tests.deploy.bundles import make_bundle, read_contract
from tests.deploy.jetson import JETPACK6, load_runner, self_test

INT8, HALF, FULL = "tensorrt_int8.onnx", "tensorrt_float16.onnx", "onnx_float32.onnx"
FEW = (engine_choice.BLOCK + engine_choice.WARMUP) * engine_choice.BLOCKS
"""Images that an engine answers while it is timed."""


@pytest.fixture
def folder(
    int8: onnx.ModelProto, float16: onnx.ModelProto, source: onnx.ModelProto, tmp_path: Path
) -> Path:
    """The three engine files of one model, as `lesiontk convert` names them."""
    for name, model in ((INT8, int8), (HALF, float16), (FULL, source)):
        backend, precision = name.removesuffix(".onnx").split("_")
        embed_spec(model, dump_spec(replace(SPEC, backend=backend, precision=precision)))
        onnx.save(model, tmp_path / name)
    return tmp_path


@pytest.fixture(scope="module")
def built() -> dict[str, Path]:
    """The bundle of these files, when it was made."""
    return {}


@pytest.fixture
def bundle(folder: Path, built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of it."""
    if not built:
        made = tmp_path_factory.mktemp("built") / "bundle"
        built["bundle"] = make_bundle(made, folder / INT8, JETPACK6)
    return Path(shutil.copytree(built["bundle"], folder / "bundle"))


def emulate(path: Path) -> Answer:
    """Return what ONNX Runtime answers for a file."""
    run = open_model(onnx.load(path))
    return lambda images: tuple(run(images))


class Jetson:
    """A device on which int8 takes `ratio` of float16's time; `wrong` files answer otherwise."""

    def __init__(
        self,
        bundle: Path,
        monkeypatch: pytest.MonkeyPatch,
        ratio: float = 0.5,
        wrong: dict[str, Answer] | None = None,
        **settings: Any,
    ) -> None:
        self.bundle = bundle
        files = {name: identify((bundle / name).read_bytes()) for name in (INT8, HALF)}
        answers = {name: emulate(bundle / name) for name in files} | (wrong or {})
        self.stand_in = Device(
            monkeypatch,
            settings.pop("version", "10.3.0"),
            answers={files[name]: found for name, found in answers.items()},
            times_ms={files[INT8]: ratio, files[HALF]: 1.0},
            refused=[files[name] for name in settings.pop("refused", ())],
            **settings,
        )
        self.run: ModuleType = load_runner(bundle, monkeypatch)

    def timed(self) -> int:
        """Return the number of inferences between two events."""
        return self.stand_in.log.count("mark") // 2


def constant(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Answer every image with the same probabilities."""
    return np.full((len(images), 3), 1 / 3, np.float32)


def shift(path: Path, drift: float) -> Answer:
    """Return a file's answers with probability moved from the second class to the first."""
    right = emulate(path)

    def answer(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        probabilities = np.array(right(images)[0])
        moved = np.minimum(drift, probabilities[:, 1])
        probabilities[:, 0] += moved
        probabilities[:, 1] -= moved
        return probabilities

    return answer


# ------------------------------------------------------------------------- bundle


def test_a_bundle_holds_float16_to_full_precision(bundle: Path, folder: Path) -> None:
    contract = read_contract(bundle)
    other = contract["alternative"]
    assert other["max_latency_ratio"] == 0.9
    changes = other["changes"]
    assert (changes["engine"]["file"], changes["engine"]["precision"]) == (HALF, "float16")
    assert changes["engine"]["content_sha256"] != contract["engine"]["content_sha256"]
    assert changes["tensorrt"] == {**contract["tensorrt"], "precision": "float16"}
    assert (contract["golden"]["max_mean_drift"], changes["golden"]["max_mean_drift"]) == (
        0.004,
        0.002,
    )
    images = make_golden_images(SPEC.preprocessing)
    with np.load(bundle / "golden.npz") as golden:
        for name, prefix in ((INT8, ""), (FULL, changes["golden"]["prefix"])):
            expected = run_outputs(onnx.load(folder / name), images[:1])[0]
            np.testing.assert_allclose(golden[f"{prefix}probabilities"][:1], expected, atol=1e-6)
    readme = (bundle / "README.md").read_text()
    assert f"two engines, `int8` and the one in `{HALF}`" in readme
    assert (bundle / HALF).read_bytes() == (folder / HALF).read_bytes()
    assert "float16" in (bundle / "MODEL_CARD.float16.md").read_text().splitlines()[0]
    parts = json.loads((bundle / "sbom.cdx.json").read_text())["components"]
    models = [part["name"] for part in parts if part["type"] == "machine-learning-model"]
    assert models == [INT8, HALF]


@pytest.mark.parametrize("missing", [HALF, FULL])
def test_without_the_other_engine_the_bundle_says_so(missing: str, folder: Path) -> None:
    (folder / missing).unlink()
    target = find_bundle_target(JETPACK6)
    facts = write_bundle_of_file(folder / "bundle", folder / INT8, target)
    assert facts.alternative is None
    assert f"{HALF} and its parent {FULL} are not both beside {INT8}" in facts.no_alternative
    assert facts.no_alternative in (folder / "bundle" / "README.md").read_text()
    assert read_contract(folder / "bundle")["alternative"] is None


def test_the_other_engine_must_be_of_the_same_model(folder: Path) -> None:
    model = onnx.load(folder / HALF)
    spec = replace(SPEC, precision="float16", split_hash="6" * 64)
    embed_spec(model, dump_spec(spec))
    onnx.save(model, folder / HALF)
    with pytest.raises(DataError, match=f"{HALF} beside {INT8} is of another model"):
        make_bundle(folder / "bundle", folder / INT8, JETPACK6)


def test_an_engine_in_float_has_no_alternative(folder: Path) -> None:
    contract = read_contract(make_bundle(folder / "bundle", folder / HALF, JETPACK6))
    assert contract["alternative"] is None


# ------------------------------------------------------------------------- choice


def test_int8_is_kept_if_it_passes_and_is_faster(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jetson = Jetson(bundle, monkeypatch, ratio=0.5)
    assert jetson.run.main(["self-test", "--rounds", "0"]) == 0
    said = capsys.readouterr()
    reason = (
        "kept int8: the latency of int8 is 0.500 [0.500, 0.500] of that of float16 (95.7% "
        "interval, 30 blocks of 10 images in turns), which is shown to be at most 0.9"
    )
    assert reason in said.out
    assert reason in said.err
    assert jetson.timed() == 2 * FEW
    choice = json.loads((bundle / engine_choice.CHOICE).read_text())
    assert choice["kept"] == "int8"
    samples = choice["latency"]["samples_ms"]
    assert samples == {"int8": [[0.5] * 10] * 30, "float16": [[1.0] * 10] * 30}
    closed = [cuda.closed for cuda in jetson.stand_in.opened]
    assert closed == [True, True]


@pytest.mark.parametrize("ratio", [0.91, 1.0, 1.5])
def test_float16_is_kept_if_int8_is_not_faster_by_the_margin(
    ratio: float,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    jetson = Jetson(bundle, monkeypatch, ratio=ratio)
    assert jetson.run.main(["bench", "--json", "--rounds", "3"]) == 0
    found = json.loads(capsys.readouterr().out)
    choice = found["runtime"]["choice"]
    assert choice["kept"] == found["runtime"]["precision"] == "float16"
    assert f"is {ratio:.3f} [{ratio:.3f}, {ratio:.3f}]" in choice["reason"]
    assert "is not shown to be at most 0.9" in choice["reason"]
    other = read_contract(bundle)["alternative"]["changes"]
    assert found["engine"] == other["engine"]  # what `lesiontk bench --import` finds it by
    assert found["engine_bytes"] == (bundle / HALF).stat().st_size
    assert found["latency_ms"]["samples"] == [1.0] * 3
    assert found["answers"]["max_mean_drift"] == 0.002
    picture = str(bundle / "golden" / "wide.png")
    assert jetson.run.main(["predict", "--json", picture]) == 0
    assert json.loads(capsys.readouterr().out)["precision"] == "float16"


@pytest.mark.parametrize(("wrong", "kept"), [(INT8, "float16"), (HALF, "int8")])
def test_an_engine_that_fails_its_self_test_is_not_kept(
    wrong: str,
    kept: str,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    jetson = Jetson(bundle, monkeypatch, ratio=0.95 if kept == "int8" else 0.1,
                    wrong={wrong: constant})  # fmt: skip
    assert jetson.run.main(["self-test", "--json", "--rounds", "0"]) == 0
    choice = json.loads(capsys.readouterr().out)["engine"]["choice"]
    failed = "int8" if kept == "float16" else "float16"
    assert choice["kept"] == kept
    assert choice["reason"].startswith(f"{failed} does not pass its self-test: the same class in ")
    assert choice["latency"] is None
    assert jetson.timed() == 0


def test_float16_must_be_nearer_to_full_precision_than_int8_to_its_emulation(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mean drift of 0.003 is within int8's limit and beyond float16's."""
    wrong = {name: shift(bundle / name, 0.0045) for name in (INT8, HALF)}
    jetson = Jetson(bundle, monkeypatch, ratio=2.0, wrong=wrong)
    assert jetson.run.main(["self-test", "--json", "--rounds", "0"]) == 0
    choice = json.loads(capsys.readouterr().out)["engine"]["choice"]
    one, other = choice["candidates"]
    for found in (one, other):
        assert found["answers"]["mean_drift"] == pytest.approx(0.003, abs=3e-4)
    assert (one["as_expected"], other["as_expected"], choice["kept"]) == (True, False, "int8")


def test_if_both_fail_no_image_is_classified(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jetson = Jetson(bundle, monkeypatch, wrong={INT8: constant, HALF: constant})
    for words in (["self-test"], ["predict", str(bundle / "golden" / "wide.png")]):
        assert jetson.run.main(words) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert "no engine is kept, so no image is classified: int8: the same class" in said.err
        assert "; float16: the same class in" in said.err
    assert not (bundle / engine_choice.CHOICE).exists()
    assert all(cuda.closed for cuda in jetson.stand_in.opened)


def test_an_engine_that_tensorrt_does_not_build_is_not_kept(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jetson = Jetson(bundle, monkeypatch, refused=[INT8], refuse="zero point is not zero")
    found = self_test_quietly(jetson, capsys)
    assert found["engine"]["choice"]["kept"] == "float16"
    assert "second (Conv): zero point is not zero" in found["engine"]["choice"]["reason"]


def self_test_quietly(jetson: Jetson, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return what the self-test found, without what it says of a first start."""
    assert jetson.run.main(["self-test", "--json", "--rounds", "0"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_without_a_gpu_nothing_is_chosen(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jetson = Jetson(bundle, monkeypatch)

    def fail() -> None:
        raise on_device.MissingRequirementError("CUDA found no GPU.")

    monkeypatch.setattr(plan_cache, "open_cuda", fail)
    assert jetson.run.main(["self-test"]) == 3
    assert "missing requirement: CUDA found no GPU." in capsys.readouterr().err


def test_another_runtime_runs_the_first_engine(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = load_runner(bundle, monkeypatch)
    assert run.main(["self-test", "--json", "--runtime", "onnx", "--rounds", "0"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["answers"]["agreement"] == 1.0
    assert "choice" not in found["engine"]


# ------------------------------------------------------------------------ stored


@pytest.mark.parametrize("ratio", [0.5, 1.0])
def test_the_choice_is_measured_once(
    ratio: float,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = self_test_quietly(Jetson(bundle, monkeypatch, ratio), capsys)
    again = Jetson(bundle, monkeypatch, ratio=2 - ratio)  # would choose otherwise now
    found = self_test(again.run, capsys)
    assert found["engine"]["choice"] == first["engine"]["choice"]
    assert again.timed() == 3  # of the self-test: two rounds after one
    assert len(again.stand_in.opened) == 1
    assert "build" not in again.stand_in.log


CHANGES: dict[str, Callable[[Path, pytest.MonkeyPatch], dict[str, Any]]] = {
    "another TensorRT": lambda bundle, patch: {"version": "10.7.0"},
    "another GPU": lambda bundle, patch: patch.setattr(Device, "device", "Orin, 8") or {},
    "a damaged file": lambda bundle, patch: (
        (bundle / engine_choice.CHOICE).write_bytes(b'{"kept"') and {}
    ) or {},
    "not an object": lambda bundle, patch: (
        (bundle / engine_choice.CHOICE).write_bytes(b"[]") and {}
    ) or {},
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_it_is_measured_again_when_something_changed(
    change: Callable[[Path, pytest.MonkeyPatch], dict[str, Any]],
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    self_test_quietly(Jetson(bundle, monkeypatch, ratio=0.5), capsys)
    again = Jetson(bundle, monkeypatch, ratio=1.0, **change(bundle, monkeypatch))
    found = self_test_quietly(again, capsys)
    assert found["engine"]["choice"]["kept"] == "float16"
    assert again.timed() == 2 * FEW


def test_a_tensorrt_that_rejects_the_kept_engine_gets_the_other(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert self_test_quietly(Jetson(bundle, monkeypatch), capsys)["engine"]["choice"]["kept"] == (
        "int8"
    )
    newer = Jetson(bundle, monkeypatch, version="11.0.0", refused=[INT8], refuse="no Q/DQ")
    choice = self_test_quietly(newer, capsys)["engine"]["choice"]
    assert choice["kept"] == "float16"
    assert "int8 does not pass its self-test: TensorRT's parser rejects" in choice["reason"]


def test_a_choice_of_another_bundle_is_measured_again(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jetson = Jetson(bundle, monkeypatch, ratio=0.5)
    self_test_quietly(jetson, capsys)
    stored = json.loads((bundle / engine_choice.CHOICE).read_text())
    stored["measured_on"]["engines"][1] = "7" * 64
    (bundle / engine_choice.CHOICE).write_text(json.dumps(stored))
    before = jetson.timed()
    self_test_quietly(jetson, capsys)
    assert jetson.timed() == before + 2 * FEW


def test_a_folder_that_cannot_be_written_is_named_with_the_remedy(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jetson = Jetson(bundle, monkeypatch)
    (bundle / engine_choice.CHOICE).mkdir()
    assert jetson.run.main(["self-test"]) == 2
    assert "cannot be stored: " in (said := capsys.readouterr().err)
    assert "Run `run.py self-test` once as a user who may write" in said
    assert all(cuda.closed for cuda in jetson.stand_in.opened)


# ------------------------------------------------------------------------- serve


def test_health_says_which_engine_answers(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Jetson(bundle, monkeypatch, ratio=1.0)
    contract = read_bundle(bundle, (bundle / "bundle.json").read_text())
    options = SimpleNamespace(runtime=None, threads=1)
    served: dict[str, str] = {}
    with open_answer(Call(contract, FileCheck({}, (), "0"), options), served) as answer:  # type: ignore[arg-type]
        document = answer((bundle / "golden" / "wide.png").read_bytes())
    other = read_contract(bundle)["alternative"]["changes"]
    assert document["precision"] == served["precision"] == "float16"
    assert served["engine_sha256"] == other["engine"]["content_sha256"]
    assert "is not shown to be at most 0.9" in served["kept_because"]


# -------------------------------------------------------------------- input checks


def test_each_engine_has_the_verdicts_of_its_own_features(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The golden statuses of float16 are not those of int8 where a score is near the threshold."""
    images = make_golden_images(SPEC.preprocessing)
    scores = []
    for name in (INT8, HALF):
        model = onnx.load(folder / name)
        add_signal_outputs(model)
        scores.append(score_domain(DomainScore(ENERGY), *run_outputs(model, images)))
    between = float((scores[0] + scores[1])[20] / 2)  # image 20 is on one side of it for each
    (folder / "input_checks").mkdir()
    domain = DomainScore(ENERGY)
    write_checks(folder / "input_checks", (folder / INT8).read_bytes(), {}, domain, between)
    bundle = make_bundle(folder / "bundle", folder / INT8, JETPACK6)
    with np.load(bundle / "golden.npz") as golden:
        for prefix, found in zip(("", "float16_"), scores, strict=True):
            refused = golden[f"{prefix}statuses"] == STATUSES.index(OUT_OF_DOMAIN)
            np.testing.assert_array_equal(refused, found > between)
        assert golden["statuses"][20] != golden["float16_statuses"][20]
    for ratio, kept in ((0.5, "int8"), (1.0, "float16")):
        (bundle / engine_choice.CHOICE).unlink(missing_ok=True)
        found = self_test_quietly(Jetson(bundle, monkeypatch, ratio), capsys)
        assert found["engine"]["choice"]["kept"] == kept
        assert found["input_checks"]["agreement"] == 1.0


# ----------------------------------------------------------------------- interval


@given(st.integers(6, 200))
def test_the_interval_of_a_median_has_the_binomials_coverage(n: int) -> None:
    low, high, confidence = engine_choice.find_median_interval(np.arange(n)[::-1])
    assert low + high == n - 1
    assert confidence == pytest.approx(1 - 2 * binom.cdf(low, n, 0.5))
    assert confidence >= engine_choice.CONFIDENCE
    assert 1 - 2 * binom.cdf(low + 1, n, 0.5) < engine_choice.CONFIDENCE  # the narrowest


def test_a_ratio_that_varies_must_be_shown() -> None:
    """A median ratio of 0.85 is not enough if its interval reaches beyond the margin."""
    generator = np.random.default_rng(3)

    class Engine:
        def __init__(self, name: str, spread: float, ms: float) -> None:
            self.bundle = SimpleNamespace(precision=name)
            self.engine, self.spread, self.ms = self, spread, ms

        def time_images(self, images: object, rounds: int, warmup: int) -> list[float]:
            return [self.ms * float(np.exp(generator.normal(0, self.spread)))] * rounds

    results = {}
    for spread in (0.01, 0.6):
        engines: list[Any] = [Engine("int8", spread, 0.85), Engine("float16", spread, 1.0)]
        results[spread] = engine_choice.compare_latency(*engines, images=None)
    assert results[0.01]["ratio_high"] < 0.9 < results[0.6]["ratio_high"]
    assert results[0.6]["ratio_low"] < results[0.6]["ratio"] < results[0.6]["ratio_high"]
