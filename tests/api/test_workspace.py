"""A workspace in Python: what its methods return, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

import lesiontk
from lesiontk.errors import DataError, GateFailedError, UsageError
from lesiontk.recipe import Recipe


def test_a_call_that_is_repeated_returns_what_is_there(
    ws: lesiontk.Workspace, recipe: Recipe, model: lesiontk.Model
) -> None:
    before = len(ws.ls())
    assert ws.train(recipe) == model
    assert len(ws.ls()) == before


def test_settings_are_dotted_or_nested(ws: lesiontk.Workspace, recipe: Recipe) -> None:
    dotted = ws.plan(recipe, set={"train.epochs": 2, "train.patience": 1})
    nested = ws.plan(recipe, set={"train": {"epochs": 2, "patience": 1}})
    assert dotted.equals(nested)
    assert not dotted.equals(ws.plan(recipe))


def test_an_unknown_key_is_refused_with_the_nearest(ws: lesiontk.Workspace, recipe: Recipe) -> None:
    with pytest.raises(UsageError, match="epochs"):
        ws.train(recipe, set={"train.epoch": 1})


def test_the_workspace_is_listed(ws: lesiontk.Workspace, engine: lesiontk.Engine) -> None:
    table = ws.ls("engine")
    assert engine.name in set(table["name"])
    assert set(table["kind"]) == {"engine"}
    assert "tflite:int8" in set(table["what"])
    with pytest.raises(UsageError, match="model"):
        ws.ls("modle")


def test_a_model_and_an_engine_are_found_again(
    ws: lesiontk.Workspace, model: lesiontk.Model, engine: lesiontk.Engine
) -> None:
    assert ws.model(model.name) == model
    assert ws.model(model.path) == model
    assert ws.engine(engine.name).file == engine.file
    assert engine.model == model
    assert model.engines["tflite:int8"].name == engine.name
    with pytest.raises(UsageError):
        ws.model("latest:vgg16_7class")


def test_the_lineage_ends_at_the_images(ws: lesiontk.Workspace, engine: lesiontk.Engine) -> None:
    text = str(engine.lineage())
    assert text.splitlines()[0].startswith(engine.name)
    assert "stage synthesize" in text
    assert ws.lineage(engine.name).tree == engine.lineage().tree


def test_a_changed_file_is_found(tmp_path: Path, recipe: Recipe) -> None:
    ws = lesiontk.Workspace(tmp_path / "workspace", progress=False)
    split = ws.split(recipe)
    assert set(split.to_pandas()["subset"]) == {"train", "validation", "test"}
    assert ws.verify(split).intact
    table = split.artefact.file("split.csv")
    table.write_text(table.read_text() + "\n")
    with pytest.raises(GateFailedError, match=split.name):
        ws.verify()


def test_the_images_are_inspected(ws: lesiontk.Workspace, recipe: Recipe) -> None:
    found = ws.check_data(recipe)
    assert found.problem is None
    assert len(found.to_pandas()) == found.facts["images"]
    assert "melanoma" in found._repr_html_() or "mel" in found._repr_html_()


def test_a_calibration_list_is_drawn_and_proved(
    ws: lesiontk.Workspace, recipe: Recipe, tmp_path: Path
) -> None:
    drawn = ws.draw_calibration(recipe, images=14, seed=3, out=tmp_path / "list.csv")
    assert len(drawn.to_pandas()) == 14
    assert ws.check_calibration(tmp_path / "list.csv").images == 14
    assert ws.describe_calibration(drawn).images == 14
    with pytest.raises(UsageError, match="recipe"):
        ws.draw_calibration(data=tmp_path)


def test_the_power_of_a_gate_is_told(ws: lesiontk.Workspace, recipe: Recipe) -> None:
    power = ws.gate_power(recipe, gates=["macro_auc >= parent - 0.1 @ 0.95"])
    assert list(power.to_pandas()["gate"]) == ["macro_auc >= parent - 0.1 @ 0.95"]


def test_a_workspace_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="not a folder"):
        lesiontk.Workspace(tmp_path / "file")
    monkeypatch.setenv("LESIONTK_WORKSPACE", str(tmp_path / "named"))
    assert lesiontk.Workspace().path == tmp_path / "named"


def test_engines_are_benchmarked_beside_their_parent(
    ws: lesiontk.Workspace, engine: lesiontk.Engine
) -> None:
    bench = ws.bench(engine, gates=["size_mb <= 0.001"])
    table = bench.to_pandas().set_index("engine")
    assert table.loc["tflite:int8", "size_bytes"] == engine.file.stat().st_size
    assert table.loc["tflite:int8", "parent"] == "tflite:float32"
    assert [verdict.failed for verdict in bench.verdicts] == [True]
    assert "size_mb" in bench._repr_html_()
    with pytest.raises(GateFailedError):
        bench.check_gates()
    with pytest.raises(UsageError, match="engine files"):
        ws.bench(engine, labels=["a", "b"])


def test_a_report_shows_itself_in_a_frame(
    ws: lesiontk.Workspace, engine: lesiontk.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: bool(opened.append(address)) or True)
    report = engine.model.report()
    report.show()
    assert opened == [report.file.resolve().as_uri()]
    frame = report._repr_html_()
    assert frame.startswith("<iframe srcdoc=")
    assert "<!doctype" not in frame.lower()


def test_a_bundle_is_written_for_a_device(engine: lesiontk.Engine, tmp_path: Path) -> None:
    bundle = engine.bundle("linux-arm64", tmp_path / "bundle", research_override=True)
    assert bundle.path == tmp_path / "bundle"
    assert bundle.engine == "tflite:int8"
    assert (bundle.path / "run.py").is_file()


def test_images_that_are_missing_are_an_error(tmp_path: Path, recipe: Recipe) -> None:
    ws = lesiontk.Workspace(tmp_path / "workspace", progress=False)
    with pytest.raises((DataError, UsageError)):
        ws.check_data("cnn_7class", data=tmp_path / "nowhere")
