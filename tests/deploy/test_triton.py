"""A Triton model repository that fits its schema, and a client that prepares, asks and decides."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

from lesiontk.backends.backend import dump_spec
from lesiontk.backends.onnx.graph import embed_spec
from lesiontk.backends.onnx.signals import add_signal_outputs
from lesiontk.deploy import find_bundle_target
from lesiontk.deploy.bundle import make_golden_images
from lesiontk.deploy.triton import render_config
from lesiontk.evaluate.input_checks import ENERGY, DomainScore, score_domain
from lesiontk.stages.input_checks import write_checks
from tests.backends.tensorrt.conftest import *  # noqa: F403 - the graphs of the back end
from tests.backends.tensorrt.graphs import SPEC, run_outputs
from tests.deploy.bundles import call_runner, make_bundle, read_contract
from tests.deploy.kserve import serving_model

MODEL = "probe_int8"


@pytest.fixture
def bundle(int8: onnx.ModelProto, tmp_path: Path) -> Path:
    """A bundle of the graph for TensorRT, with input checks that refuse half of the images."""
    embed_spec(int8, dump_spec(SPEC))
    path = tmp_path / "tensorrt_int8.onnx"
    onnx.save(int8, path)
    add_signal_outputs(int8)
    outputs = run_outputs(int8, make_golden_images(SPEC.preprocessing))
    domain = DomainScore(ENERGY)
    (tmp_path / "input_checks").mkdir()
    threshold = float(np.median(score_domain(domain, *outputs)))
    write_checks(tmp_path / "input_checks", path.read_bytes(), {}, domain, threshold)
    return make_bundle(tmp_path / "bundle", path, "triton")


# ------------------------------------------------------------------------- schema


def load_schema() -> ModuleType:
    """Return Triton's ``model_config.proto`` as Python, which its client package contains."""
    found = importlib.util.find_spec("tritonclient")
    assert found is not None
    assert found.origin is not None
    path = Path(found.origin).with_name("grpc") / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("triton_model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore:Protobuf gencode version")
def test_the_configuration_fits_tritons_schema(bundle: Path) -> None:
    from google.protobuf import text_format

    schema = load_schema()
    text = (bundle / "model_repository" / MODEL / "config.pbtxt").read_text()
    config = text_format.Parse(text, schema.ModelConfig())  # type: ignore[attr-defined]
    assert (config.name, config.backend, config.max_batch_size) == (MODEL, "onnxruntime", 8)
    image, *others = config.input
    assert not others
    assert (image.name, list(image.dims)) == ("image", [8, 8, 3])
    assert schema.DataType.Name(image.data_type) == "TYPE_UINT8"  # type: ignore[attr-defined]
    assert {entry.name: list(entry.dims) for entry in config.output} == {
        "probabilities": [3],
        "features": [4, 1, 1],
        "logits": [3],
    }
    assert config.output[0].label_filename == "labels.txt"
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert (accelerator.name, dict(accelerator.parameters)) == (
        "tensorrt",
        {"precision_mode": "INT8"},
    )
    with pytest.raises(text_format.ParseError, match="max_batch"):
        text_format.Parse(text.replace("max_batch_size", "max_batch"), schema.ModelConfig())  # type: ignore[attr-defined]


# --------------------------------------------------------------------- repository


def test_the_repository_has_the_layout_that_triton_reads(bundle: Path, tmp_path: Path) -> None:
    home = bundle / "model_repository" / MODEL
    files = sorted(path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file())
    assert files == ["1/model.onnx", "config.pbtxt", "labels.txt"]
    assert (home / "labels.txt").read_text() == "mel\nnv\nbkl\n"
    contract = read_contract(bundle)
    assert contract["engine"]["file"] == f"model_repository/{MODEL}/1/model.onnx"
    assert contract["triton"] == {
        "model": MODEL,
        "outputs": ["probabilities", "features", "logits"],
    }
    assert list(contract["runtimes"]) == ["triton", "onnx"]
    assert not (bundle / "tensorrt_int8.onnx").exists()
    sums = (bundle / "SHA256SUMS").read_text()
    assert f"model_repository/{MODEL}/config.pbtxt" in sums
    assert (
        f"The model `{MODEL}` takes `image`, uint8 RGB [8, 8, 3]"
        in (bundle / "README.md").read_text()
    )


def test_a_graph_for_one_image_has_no_batch_of_the_server(source: onnx.ModelProto) -> None:
    text = render_config("probe", source.graph, replace(SPEC, backend="onnx"))
    assert "max_batch_size: 0" in text
    assert "dims: [ 1, 8, 8, 3 ]" in text
    assert "dims: [ 1, 3 ]" in text
    assert "dynamic_batching" not in text
    assert "tensorrt" not in text


@pytest.mark.parametrize(("precision", "mode"), [("float16", "FP16"), ("float32", "FP32")])
def test_tensorrt_computes_in_the_precision_of_the_graph(
    precision: str, mode: str, float32: onnx.ModelProto
) -> None:
    text = render_config("probe", float32.graph, replace(SPEC, precision=precision))
    assert f'key: "precision_mode" value: "{mode}"' in text


def test_the_name_of_a_recipe_becomes_a_name_of_the_repository() -> None:
    target = find_bundle_target("triton")
    place = target.place("x.onnx", replace(SPEC, recipe="my recipe/ä"))
    assert place == "model_repository/my_recipe___int8/1/model.onnx"


# ------------------------------------------------------------------------- client


def ask(bundle: Path, url: str, *words: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("LESIONTK_TRITON_URL", url)
    return call_runner(bundle, *words, without=("onnxruntime",))


def test_the_client_tests_the_server_and_decides_as_a_device_does(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bundle / read_contract(bundle)["engine"]["file"]
    with serving_model(path, MODEL) as url:
        done = ask(bundle, url, "self-test", "--json", "--rounds", "2", monkeypatch=monkeypatch)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["engine"] == {
            "runtime": "triton", "version": "2.60.0", "url": url, "model": MODEL,
        }  # fmt: skip
        assert found["answers"]["agreement"] == found["input_checks"]["agreement"] == 1.0
        picture = str(bundle / "golden" / "wide.png")
        asked = ask(bundle, url, "predict", "--json", picture, monkeypatch=monkeypatch)
        assert asked.returncode == 0, asked.stderr
        here = call_runner(bundle, "predict", "--json", "--runtime", "onnx", picture)
        (mine,) = json.loads(asked.stdout)["predictions"]
        (theirs,) = json.loads(here.stdout)["predictions"]
        assert mine["input"]["status"] == theirs["input"]["status"]
        assert mine["probabilities"] == pytest.approx(theirs["probabilities"], abs=1e-4)


def drop_features(document: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
    del document["outputs"][1]
    return document, content


def cut(document: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
    return document, content[:-1]


def as_text(document: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
    document["outputs"][0]["datatype"] = "BYTES"
    return document, content


def uniform(document: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
    wrong = np.full(3, 1 / 3, "<f4").tobytes()
    return document, wrong + content[len(wrong) :]


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (drop_features, 2, "cannot be read: .*expected float32 probabilities, features, logits"),
        (cut, 2, "cannot be read: logits is FP32 of 12 bytes"),
        (as_text, 2, "cannot be read: probabilities is BYTES"),
        (uniform, 1, ""),
    ],
)
def test_a_server_that_answers_otherwise_is_found_out(
    change: Callable[..., Any],
    code: int,
    said: str,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = bundle / read_contract(bundle)["engine"]["file"]
    with serving_model(path, MODEL, change) as url:
        done = ask(bundle, url, "self-test", "--rounds", "0", monkeypatch=monkeypatch)
    assert done.returncode == code, done.stderr
    assert re.search(said, done.stderr)
    assert ("NOT AS EXPECTED" in done.stdout) == (code == 1)


def test_a_server_without_the_model_is_a_missing_requirement(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bundle / read_contract(bundle)["engine"]["file"]
    with serving_model(path, "another") as url:
        done = ask(bundle, url, "self-test", monkeypatch=monkeypatch)
    assert done.returncode == 3
    assert f"Triton at {url} does not serve {MODEL} (HTTP 400): start it with" in done.stderr
    done = ask(bundle, url, "self-test", monkeypatch=monkeypatch)  # it has ended
    assert done.returncode == 3
    assert f"no Triton server answers at {url}" in done.stderr


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8000", "'localhost:8000'; expected such as http://"),
        ("http://127.0.0.1:99999", "'http://127.0.0.1:99999' (Port out of range"),
    ],
)
def test_what_is_no_address_is_refused(
    url: str, message: str, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = ask(bundle, url, "self-test", monkeypatch=monkeypatch)
    assert done.returncode == 2
    assert f"LESIONTK_TRITON_URL is {message}" in done.stderr
