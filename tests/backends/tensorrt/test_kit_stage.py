"""The folder that goes to a Jetson: whole, checked, and running as far as it can here."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from lesiontk.backends import open_engine
from lesiontk.backends.backend import dump_spec
from lesiontk.backends.onnx_graph import embed_spec
from lesiontk.backends.tensorrt import on_device
from lesiontk.backends.tensorrt.kit_stage import KitConfig, KitStage
from lesiontk.backends.tensorrt.targets import read_targets
from lesiontk.cli.main import cli
from lesiontk.errors import DataError, UsageError
from lesiontk.recipe import VerifyRule
from lesiontk.records import Artefact, EngineSpec, Preprocessing
from lesiontk.stage import Context
from lesiontk.store import Store
from lesiontk.workflow import write_kits

from .graphs import pictures
from .test_lint import make_asymmetric
from .test_on_device import Device

LABELS = ("mel", "nv", "bkl")
SPEC = EngineSpec(LABELS, Preprocessing(8), "three_class", "tensorrt", "int8", "probe", "5" * 64)
JETPACK6 = "jetson-orin-jetpack6"


class Workplace:
    """An engine and images as artefacts, and the stage run on them."""

    def __init__(self, folder: Path, model: onnx.ModelProto) -> None:
        self.folder, self.model = folder, model
        (folder / "engine").mkdir()
        (folder / "images").mkdir()
        self.images = self._write_images(folder / "images")

    def engine(self, spec: EngineSpec = SPEC) -> Artefact:
        embed_spec(self.model, dump_spec(spec))
        name = f"{spec.backend}_{spec.precision}.onnx"
        onnx.save(self.model, self.folder / "engine" / name)
        facts = {
            "backend": spec.backend,
            "target": f"{spec.backend}:{spec.precision}",
            "file": name,
        }
        manifest = {
            "kind": "engine",
            "key": "e" * 64,
            "facts": facts,
            "files": {name: {}},
            "config": {"verify": VerifyRule(images=16).model_dump()},
        }
        return Artefact(self.folder / "engine", manifest)

    def build(self, target: str = JETPACK6, spec: EngineSpec = SPEC) -> tuple[Path, dict[str, Any]]:
        """Return the kit's folder and facts."""
        out = self.folder / f"kit-{target}-{spec.precision}"
        out.mkdir()
        config = KitConfig(target=target, golden_images=6)
        parents = {"engine": self.engine(spec), "images": self.images}
        return out, dict(KitStage().run(parents, config, Context(out, out)).facts)

    def _write_images(self, folder: Path) -> Artefact:
        np.save(folder / "images.npy", pictures(24))
        with (folder / "images.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("image_id", "group", "label", "side", "pixel_sha256"))
            for n in range(24):
                side = ("train", "validation")[n % 2]
                writer.writerow([f"IMG_{n}", f"lesion_{n}", LABELS[n // 2 % 3], side, str(n)])
        facts = {
            "labels": list(LABELS),
            "task": "three_class",
            "critical": "mel",
            "preprocessing": asdict(Preprocessing(8)),
            "split_hash": "5" * 64,
        }
        files: dict[str, Any] = {"images.npy": {}, "images.csv": {}}
        return Artefact(folder, {"kind": "images", "key": "a" * 64, "facts": facts, "files": files})


@pytest.fixture
def workplace(tmp_path: Path, int8: onnx.ModelProto) -> Workplace:
    return Workplace(tmp_path, int8)


@pytest.mark.parametrize("target", read_targets())
def test_a_kit_has_graph_script_golden_answers_and_instructions(
    target: str, workplace: Workplace
) -> None:
    folder, facts = workplace.build(target)
    assert {path.name for path in folder.iterdir()} == {
        "tensorrt_int8.onnx", "on_device.py", "golden.npz", "kit.json", "README.md",
    }  # fmt: skip
    versions = list(read_targets()[target].tensorrt)
    assert facts["check"]["versions"] == versions
    assert facts["check"]["findings"] == []
    assert list(facts["trtexec"]) == versions
    readme = (folder / "README.md").read_text()
    assert all(line in readme for line in facts["trtexec"].values())
    assert f"not run on a {read_targets()[target].device}" in readme
    source = workplace.folder / "engine" / "tensorrt_int8.onnx"
    assert (folder / "tensorrt_int8.onnx").read_bytes() == source.read_bytes()
    assert (folder / "on_device.py").read_text() == Path(on_device.__file__).read_text()


def test_its_golden_answers_are_the_engines_to_validation_images(workplace: Workplace) -> None:
    folder, facts = workplace.build()
    golden = np.load(folder / "golden.npz")
    assert golden["images"].shape == (6, 8, 8, 3)
    validation = pictures(24)[1::2]
    assert all(any(np.array_equal(i, v) for v in validation) for i in golden["images"])
    with open_engine(folder / "tensorrt_int8.onnx") as engine:
        np.testing.assert_array_equal(engine.predict(golden["images"]), golden["probabilities"])
    assert facts["golden_answers_from"][0]["asked"] == "TensorRT"


def test_it_runs_on_a_device_that_answers_alike(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = workplace.build()
    with open_engine(folder / "tensorrt_int8.onnx") as engine:
        Device(monkeypatch, "10.3.0", answer=engine.predict)
        found = on_device.run_kit(folder, rebuild=False, rounds=2, warmup=0)
    assert found["golden"]["as_expected"]
    assert found["golden"]["n"] == 6
    assert found["warning"] == ""


def test_how_alike_depends_on_the_precision(workplace: Workplace) -> None:
    rule = VerifyRule()
    (int8, _), (single, _) = (
        workplace.build(),
        workplace.build(spec=replace(SPEC, precision="float32")),
    )
    reduced, full = (json.loads((f / "kit.json").read_text()) for f in (int8, single))
    assert reduced["max_mean_drift"] == rule.max_mean_drift_int8
    assert full["max_mean_drift"] == rule.max_mean_drift_float


def test_a_graph_that_tensorrt_refuses_makes_no_kit(workplace: Workplace) -> None:
    make_asymmetric(workplace.model)
    with pytest.raises(DataError, match="asymmetric: its zero point is -128"):
        workplace.build()


def test_an_engine_of_another_back_end_makes_no_kit(workplace: Workplace) -> None:
    with pytest.raises(UsageError, match="onnx:int8 is none; expected --to tensorrt:int8"):
        workplace.build(spec=replace(SPEC, backend="onnx"))


def test_an_unknown_target_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown target 'jetson-nano'"):
        KitStage().check(KitConfig(target="jetson-nano"))
    options = ["--to", "tensorrt:int8", "--target", "jetson-nano", "--workspace", str(tmp_path)]
    done = CliRunner().invoke(cli, ["convert", *options])
    assert isinstance(done.exception, UsageError)
    assert list(tmp_path.iterdir()) == []


def test_a_target_without_a_tensorrt_engine_is_refused(
    workplace: Workplace, tmp_path: Path
) -> None:
    engines = {"onnx:int8": workplace.engine(replace(SPEC, backend="onnx"))}
    store = Store(tmp_path / "workspace")
    with pytest.raises(UsageError, match="builds TensorRT engines, and onnx:int8 is none"):
        write_kits(store, engines, [JETPACK6])
    assert write_kits(store, engines, []) == {}
