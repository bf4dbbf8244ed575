"""The whole chain through the command line, on tiny synthetic pictures.

One workspace is made for the session and only read by the tests; who writes, writes into a copy.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lesiontk.backends import find_backend
from lesiontk.calibration.observers import OBSERVERS, MinMaxObserver
from lesiontk.deploy.bundle import hash_content
from lesiontk.records import NOTICE
from tests.end_to_end.chain import CHAIN, DEMO, TRAINING, Chain, set_keys
from tests.end_to_end.command_line import Call, call_lesiontk, start_lesiontk
from tests.measuring import measuring_here

TARGETS = ["keras:float32", "tflite:float32", "tflite:int8", "onnx:float32", "onnx:int8"]
LABELS = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]


def stages_run(call: Call) -> list[str]:
    return [line.rpartition(" ")[2] for line in call.err.splitlines() if ": stage " in line]


# ------------------------------------------------------------------------ demo


def test_demo_goes_from_pictures_to_a_report(chain: Chain) -> None:
    stages = stages_run(chain.call)
    assert stages[:4] == ["synthesize", "inspect", "split", "prepare"]
    assert stages.index("train") < stages.index("convert") < stages.index("evaluate")
    assert stages[-2:] == ["bench", "report"]
    report = Path(chain.call.document["report"])
    assert report.is_file()
    assert report.parent.parent == chain.workspace
    assert "mel" in report.read_text()
    assert [f"{r['backend']}:{r['precision']}" for r in chain.call.document["rows"]] == TARGETS
    assert len(list(chain.workspace.glob("engine-*"))) == len(TARGETS)


def heatmaps_section(report: Path) -> str:
    rest = report.read_text().partition('<section id="heatmaps"')[2]
    return rest.partition("</section>")[0]


def test_the_report_shows_heatmaps_of_the_worst_errors(chain: Chain) -> None:
    explanation = json.loads((chain.folder("explanation") / "explanation.json").read_text())
    section = heatmaps_section(Path(chain.call.document["report"]))
    assert len(explanation["images"]) == 12
    assert section.count("data:image/jpeg;base64,") == 36
    assert section.count("<figure") == 12
    places = [section.index(f"<strong>{i['image_id']}</strong>") for i in explanation["images"]]
    assert places == sorted(places)
    (row,) = [r for r in chain.call.document["rows"] if r["backend"] == "keras"]
    recall = row["metrics"]["recall[mel]"]["value"]
    missed = explanation["critical_missed"] / explanation["critical_judged"]
    assert missed == pytest.approx(1 - recall)
    shown = [image["reason"] for image in explanation["images"]].count("critical_missed")
    assert section.count("mel missed</span>") == shown == min(12, explanation["critical_missed"])


def test_a_report_on_a_model_that_is_there_explains_it_too(copy: Path) -> None:
    call = call_lesiontk("report", "--json", "--set", "explain.images=3", workspace=copy)
    assert call.code == 0, call.err
    assert stages_run(call) == ["explain", "report"]
    section = heatmaps_section(Path(call.document["report"]))
    assert section.count("data:image/jpeg;base64,") == 9
    without = call_lesiontk("report", "--json", "--set", "explain.images=0", workspace=copy)
    assert "No heatmaps were made" in heatmaps_section(Path(without.document["report"]))


def test_the_same_command_again_runs_nothing(chain: Chain) -> None:
    again = call_lesiontk("demo", "--json", *set_keys(DEMO), workspace=chain.workspace)
    assert again.code == 0
    assert stages_run(again) == []
    reused = [line for line in again.err.splitlines() if line.endswith(": reused")]
    assert len(reused) == len(stages_run(chain.call))
    assert again.document == chain.call.document


def test_another_setting_runs_what_depends_on_it_and_no_more(copy: Path) -> None:
    call = call_lesiontk(
        "demo",
        *set_keys(DEMO),
        "--set",
        "convert=[keras:float32]",
        "--set",
        "evaluate.confidence=0.9",
        workspace=copy,
    )
    assert call.code == 0, call.err
    assert stages_run(call) == ["evaluate", "explain", "bench", "report"]


def test_a_plan_is_shown_without_work(tmp_path: Path) -> None:
    call = call_lesiontk("run", "demo", "--dry-run", "--json", workspace=tmp_path / "new")
    assert call.code == 0
    assert [step["step"] for step in call.document][-2:] == ["benchmark", "report"]
    assert not (tmp_path / "new").exists()


# ---------------------------------------------------------------- step by step


@pytest.fixture(scope="session")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Call]:
    """``train``, ``quantize --int8``, ``bench`` in a fresh workspace, named by the environment."""
    workspace = tmp_path_factory.mktemp("steps") / "workspace"
    with pytest.MonkeyPatch.context() as patch, measuring_here():
        patch.setenv("LESIONTK_WORKSPACE", str(workspace))
        return {
            "train": call_lesiontk("train", "--json", *set_keys(CHAIN)),
            "quantize": call_lesiontk("quantize", "--int8", "--json"),
            "bench": call_lesiontk("bench", "--json"),
            "profile": call_lesiontk("profile", "--rounds", "5", "--json"),
        }


@pytest.mark.parametrize("step", ["train", "quantize", "bench"])
def test_train_quantize_and_bench_follow_each_other_without_arguments(
    step: str, steps: dict[str, Call]
) -> None:
    assert steps[step].code == 0, steps[step].err


def test_train_says_what_it_made(steps: dict[str, Call]) -> None:
    document = steps["train"].document
    assert (Path(document["path"]) / "model.keras").is_file()
    assert document["labels"] == LABELS
    assert document["epochs"] == 6
    assert 1 <= document["best_epoch"] <= 6
    assert document["validation"]["n"] > 0


def test_training_gives_the_same_curve_as_in_the_whole_run(
    steps: dict[str, Call], chain: Chain
) -> None:
    assert_same_curves(Path(steps["train"].document["path"]), chain.folder("model"))


def test_quantize_makes_an_engine_of_every_back_end(steps: dict[str, Call]) -> None:
    document = steps["quantize"].document
    assert list(document) == ["tflite:int8", "onnx:int8"]
    for engine in document.values():
        assert Path(engine["path"]).is_file()
        assert engine["size_bytes"] == Path(engine["path"]).stat().st_size
        assert engine["verification"]["passed"]
        assert engine["verification"]["n"] == 16


def test_bench_has_the_documented_shape(steps: dict[str, Call]) -> None:
    document = steps["bench"].document
    assert {"rows", "machine", "gate", "threads", "batch", "split_hash"} <= set(document)
    assert {"processor", "cores", "memory_bytes", "int8_features"} <= set(document["machine"])
    rows = {f"{row['backend']}:{row['precision']}": row for row in document["rows"]}
    assert set(rows) == set(TARGETS)
    for target, row in rows.items():
        assert row["engine"].startswith("engine-")
        latency = row["latency_ms"]
        assert latency["n"] in (20, 40)  # a slow engine has one query in a round instead of two
        assert (latency["p90"] is None) == (latency["n"] < 36)
        assert 0 < latency["p10"] <= latency["median"] <= (latency["p90"] or float("inf"))
        scenarios = {timing["scenario"]: timing for timing in row["scenarios"]}
        assert {"single_stream", "offline"} <= set(scenarios)
        assert scenarios["single_stream"]["latency_ms"] == latency
        assert row["path"]["whole"]["median"] > row["path"]["decode"]
        assert row["load"]["peak_bytes"] == row["peak_memory_bytes"]
        assert row["size_bytes"] > 100_000
        assert row["peak_memory_bytes"] > 10_000_000
        assert {"accuracy", "balanced_accuracy", "macro_auc", "recall[mel]"} <= set(row["metrics"])
        assert (row["versus_parent"] is None) == (target == "keras:float32")
    profiled = {target for target, row in rows.items() if row["profile"] is not None}
    assert profiled == {target for target in TARGETS if not target.startswith("keras")}
    work = {target: row["work"]["macs"] for target, row in rows.items()}
    assert len(set(work.values())) == 1, work
    for target in ("tflite:int8", "onnx:int8"):
        versus, parent = rows[target]["versus_parent"], rows[target.replace("int8", "float32")]
        assert versus["parent"] == target.replace("int8", "float32")
        assert versus["speedup"] == pytest.approx(
            parent["latency_ms"]["median"] / rows[target]["latency_ms"]["median"],
            rel=1e-2,  # the medians are rounded
        )
        assert versus["size_ratio"] == pytest.approx(
            parent["size_bytes"] / rows[target]["size_bytes"]
        )
        assert versus["size_ratio"] > 3
        images = rows[target]["n"]
        for attribute in ("age", "brightness"):
            groups = [g["n"] for g in versus["subgroups"] if g["attribute"] == attribute]
            assert sum(groups) == images
        assert versus["balanced_accuracy_delta"] == pytest.approx(
            rows[target]["metrics"]["balanced_accuracy"]["value"]
            - parent["metrics"]["balanced_accuracy"]["value"],
            abs=1e-6,
        )


def test_profile_takes_the_latest_engine_whose_layers_can_be_timed(steps: dict[str, Call]) -> None:
    """The last used one is the model in Keras, which has no profile."""
    assert steps["profile"].code == 0, steps["profile"].err
    document = steps["profile"].document
    rows = {row["target"]: row for row in steps["bench"].document["rows"]}
    assert document["engine"] in TARGETS
    layers = {layer["layer"] for layer in document["layers"]}
    assert layers == {layer["layer"] for layer in rows[document["engine"]]["profile"]["layers"]}


# ---------------------------------------------------------------------- resume


def read_curves(model: Path) -> list[dict[str, float]]:
    with (model / "curves.csv").open(newline="") as stream:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(stream)]


def assert_same_curves(first: Path, second: Path) -> None:
    curves = [[list(row.values()) for row in read_curves(model)] for model in (first, second)]
    np.testing.assert_allclose(curves[0], curves[1], atol=1e-4)


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_curve(chain: Chain, tmp_path: Path) -> None:
    for kind in ("dataset", "inspection", "split", "images"):
        folder = chain.folder(kind)
        shutil.copytree(folder, tmp_path / folder.name)
    process = start_lesiontk("train", *set_keys(TRAINING), workspace=tmp_path)
    assert process.stderr is not None
    with process, process.stderr:
        seen = next((line for line in process.stderr if line.startswith("epoch 2:")), "")
        process.kill()
    assert seen, "the training was over or failed before its second epoch"
    assert process.returncode == -9
    assert list(tmp_path.glob("model-*")) == []

    resumed = call_lesiontk("train", "--json", *set_keys(TRAINING), workspace=tmp_path)
    assert resumed.code == 0, resumed.err
    assert "training resumes after epoch" in resumed.err
    assert "epoch 1:" not in resumed.err
    assert_same_curves(Path(resumed.document["path"]), chain.folder("model"))
    assert not list((tmp_path / ".scratch").iterdir())


# --------------------------------------------------------------------- predict


def test_predict_answers_for_good_pictures_and_names_broken_ones(
    chain: Chain, tmp_path: Path
) -> None:
    good = sorted(chain.folder("dataset").rglob("*.jpg"))[0]
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(good.read_bytes()[:300])
    call = call_lesiontk(
        "predict", "--json", chain.engine("tflite:int8"), broken, good, workspace=tmp_path / "new"
    )
    assert call.code == 2
    assert broken.name in call.err
    (failure,) = call.document["failures"]
    assert failure["image"] == str(broken)
    (prediction,) = call.document["predictions"]
    assert prediction["image"] == str(good)
    assert list(prediction["probabilities"]) == LABELS
    assert sum(prediction["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert prediction["label"] == max(LABELS, key=prediction["probabilities"].__getitem__)


def test_predict_is_content_with_good_pictures(chain: Chain, tmp_path: Path) -> None:
    good = sorted(chain.folder("dataset").rglob("*.jpg"))[:2]
    call = call_lesiontk("predict", chain.engine("onnx:int8"), *good, workspace=tmp_path / "new")
    assert call.code == 0
    assert all(str(path) in call.out for path in good)
    assert "not a medical device" in call.out


def test_predict_without_an_engine_is_refused(tmp_path: Path) -> None:
    absent, picture = tmp_path / "absent.tflite", tmp_path / "picture.jpg"
    call = call_lesiontk("predict", absent, picture, workspace=tmp_path / "new")
    assert call.code == 2
    assert "absent.tflite does not exist" in call.err


# -------------------------------------------------------------------- evaluate


def write_isic_table(metadata: Path, out: Path) -> None:
    """Write HAM10000's metadata as the one-hot table of the ISIC challenges."""
    order = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
    with metadata.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    lines = [",".join(("image", *order))]
    for row in rows:
        values = [f"{float(row['dx'].upper() == name):.1f}" for name in order]
        lines.append(",".join([row["image_id"], *values]))
    out.write_text("\n".join(lines) + "\n")


def evaluate_on(chain: Chain, labels: Path, *options: str, workspace: Path) -> dict[str, Any]:
    call = call_lesiontk(
        "evaluate",
        chain.engine("tflite:int8"),
        "--json",
        "--images",
        chain.folder("dataset"),
        "--labels",
        labels,
        *options,
        workspace=workspace,
    )
    assert call.code == 0, call.err
    document: dict[str, Any] = call.document
    return document


def test_evaluate_reads_ham10000_and_isic_tables_alike(chain: Chain, tmp_path: Path) -> None:
    metadata, one_hot = chain.folder("dataset") / "HAM10000_metadata.csv", tmp_path / "ISIC.csv"
    write_isic_table(metadata, one_hot)
    ham, isic = (evaluate_on(chain, t, workspace=tmp_path / "new") for t in (metadata, one_hot))
    with metadata.open() as stream:
        assert ham["n"] == len(stream.readlines()) - 1
    assert ham["labels"] == LABELS
    assert ham["n"] == isic["n"] == int(np.sum(ham["confusion"]))
    assert ham["confusion"] == isic["confusion"]
    assert ham["lesions"] < ham["n"] == isic["lesions"]  # ISIC's table knows no lesions
    for name in ("accuracy", "balanced_accuracy", "macro_auc", "recall[mel]"):
        estimate = ham["metrics"][name]
        assert estimate["low"] <= estimate["value"] <= estimate["high"]
        assert estimate["value"] == isic["metrics"][name]["value"]
    diagonal = np.trace(np.array(ham["confusion"])) / ham["n"]
    assert ham["metrics"]["accuracy"]["value"] == pytest.approx(diagonal)


def test_evaluate_leaves_out_what_the_engine_was_trained_on(chain: Chain) -> None:
    metadata = chain.folder("dataset") / "HAM10000_metadata.csv"
    split = json.loads((chain.folder("split") / "manifest.json").read_text())["facts"]["images"]
    counts = {subset: sum(by_label.values()) for subset, by_label in split.items()}
    unseen = evaluate_on(chain, metadata, workspace=chain.workspace)
    assert unseen["n"] == counts["test"]
    assert unseen["seen_images"] == {subset: counts[subset] for subset in ("train", "validation")}
    everything = evaluate_on(chain, metadata, "--include-seen", workspace=chain.workspace)
    assert everything["n"] == sum(counts.values())


def test_evaluate_takes_the_test_side_of_the_engines_own_split(chain: Chain) -> None:
    name = chain.engine("tflite:int8").parent.name
    call = call_lesiontk("evaluate", name, "--json", workspace=chain.workspace)
    assert call.code == 0, call.err
    split = json.loads((chain.folder("split") / "manifest.json").read_text())["facts"]
    assert call.document["n"] == sum(split["images"]["test"].values())
    assert call.document["subset"] == "test"
    rows = {f"{r['backend']}:{r['precision']}": r for r in chain.call.document["rows"]}
    assert call.document["metrics"] == rows["tflite:int8"]["metrics"]


def test_evaluate_takes_the_threshold_frozen_on_validation_to_other_images(chain: Chain) -> None:
    name, pictures = chain.engine("tflite:int8").parent.name, chain.folder("dataset")
    arguments = ("evaluate", name, "--images", pictures, "--json")
    call = call_lesiontk(*arguments, "--include-seen", workspace=chain.workspace)
    assert call.code == 0, call.err
    (row,) = (r for r in chain.call.document["rows"] if r["engine"] == name)
    frozen, used = row["operating_point"], call.document["operating_point"]
    assert frozen["rule"] == "parent_sensitivity"
    for key in ("rule", "threshold", "positive", "validation"):
        assert used[key] == frozen[key]
    assert used["sensitivity"] != frozen["sensitivity"]


def test_evaluate_wants_images_for_a_file_of_unknown_origin(chain: Chain, tmp_path: Path) -> None:
    alone = Path(shutil.copy(chain.engine("tflite:int8"), tmp_path))
    call = call_lesiontk("evaluate", alone, workspace=chain.workspace)
    assert call.code == 2
    assert "test split is not known" in call.err


# ---------------------------------------------------------- verify and lineage


def test_verify_passes_until_a_byte_is_flipped(chain: Chain, copy: Path) -> None:
    original = chain.engine("tflite:int8")
    engine = copy / original.relative_to(chain.workspace)
    whole = call_lesiontk("verify", engine.parent.name, "--json", workspace=copy)
    assert whole.code == 0, whole.err
    assert engine.parent.name in whole.document["intact"]
    assert chain.folder("split").name in whole.document["intact"]
    assert whole.document["verification"]["passed"]

    content = bytearray(engine.read_bytes())
    content[len(content) // 2] ^= 1
    engine.write_bytes(content)
    flipped = call_lesiontk("verify", engine.parent.name, workspace=copy)
    assert flipped.code == 1
    assert f"{engine.name} was changed" in flipped.err

    again = call_lesiontk("convert", "--to", "tflite:int8", workspace=copy)
    assert again.code == 0, again.err
    assert f"rebuilt, because {engine.name} was changed" in again.err
    assert engine.read_bytes() == original.read_bytes()
    assert call_lesiontk("verify", engine.parent.name, workspace=copy).code == 0


def test_verify_sees_damage_in_what_an_engine_was_made_from(chain: Chain, copy: Path) -> None:
    table = copy / chain.folder("split").name / "split.csv"
    table.write_text(table.read_text().replace(",train,", ",test,", 1))
    name = chain.engine("onnx:int8").parent.name
    call = call_lesiontk("verify", name, workspace=copy)
    assert call.code == 1
    assert "split.csv was changed" in call.err


def list_kinds(tree: dict[str, Any]) -> set[str]:
    kinds = {tree["name"].rpartition("-")[0]}
    return kinds.union(*(list_kinds(parent) for parent in tree["parents"].values()))


def test_lineage_leads_from_an_engine_to_split_and_pictures(chain: Chain) -> None:
    name = chain.engine("onnx:int8").parent.name
    call = call_lesiontk("lineage", name, "--json", workspace=chain.workspace)
    assert call.code == 0
    data = {"images", "split", "inspection", "dataset"}
    assert list_kinds(call.document) == {"engine", "model", "calibration", "ranges", *data}
    text = call_lesiontk("lineage", name, workspace=chain.workspace).out
    assert chain.folder("split").name in text


def test_convert_writes_what_a_jetson_needs(copy: Path) -> None:
    options = ("--to", "tensorrt:int8", "--target", "jetson-orin-jetpack6")
    call = call_lesiontk("convert", *options, "--json", workspace=copy)
    assert call.code == 0, call.err
    engine = call.document["tensorrt:int8"]
    assert engine["verification"]["passed"]
    assert engine["examination"]["check"]["findings"] == []
    bundle = Path(engine["bundles"]["jetson-orin-jetpack6"])
    assert bundle.parent == copy
    document = json.loads((bundle / "bundle.json").read_text())
    assert document["labels"] == LABELS
    model = bundle / document["engine"]["file"]
    _, record = find_backend(model)().split_record(model.read_bytes())
    assert document["engine"]["content_sha256"] == hash_content(Path(engine["path"]))
    assert document["input_checks"]  # which need further outputs: the file is another
    assert record  # its threshold and figures
    text = call_lesiontk("convert", *options, workspace=copy)  # nothing is made again
    assert f"copy {bundle} to it" in text.out.replace("\n", "")

    bench = call_lesiontk("bench", str(engine["artefact"]), "--json", workspace=copy)
    (row,) = [r for r in bench.document["rows"] if r["backend"] == "tensorrt"
              and r["precision"] == "int8"]  # fmt: skip
    assert [part["asked"] for part in row["execution"]] == ["TensorRT"]
    refused = call_lesiontk("convert", "--to", "onnx:int8", *options[2:], workspace=copy)
    assert refused.code == 2
    assert "received onnx:int8. Make one with `lesiontk convert --to tensorrt" in refused.err


def test_a_bundle_of_the_latest_model_knows_its_threshold_and_worth(
    copy: Path, tmp_path: Path
) -> None:
    out = tmp_path / "board"
    options = ("--target", "linux-arm64", "--out", str(out), "--json")
    call = call_lesiontk("bundle", *options, workspace=copy)
    assert call.code == 0, call.err
    assert call.document["engine"] == "tflite:int8"
    contract = json.loads((out / "bundle.json").read_text())
    assert contract["operating_point"]["positive"] == ["akiec", "bcc", "mel"]
    assert [entry["outcome"] for entry in contract["gates"]] == ["passed"]
    card = (out / "MODEL_CARD.md").read_text()
    assert "recall[mel]" in card
    assert "tflite:int8: `macro_auc >= parent - 0.5 @ 0.95` passed" in card
    assert "### By subgroup" in card
    assert "| age: 60 and over |" in card
    assert contract["research_override"] is None
    assert contract["notice"] == NOTICE
    command = [sys.executable, str(out / "run.py"), "self-test", "--rounds", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().endswith("\nas expected")
    assert not (out / "manifest.json").exists()


# ----------------------------------------------------------------------- gates


class BlindObserver(MinMaxObserver):
    """Sees a tenth of every range: its engines saturate and lose their accuracy."""

    def range(self) -> tuple[float, float]:
        low, high = super().range()
        return low / 10, high / 10


@pytest.fixture
def blind_observer(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(OBSERVERS._targets, "blind", f"{__name__}:BlindObserver")
    return "blind"


def test_a_gate_that_does_not_hold_ends_with_exit_1_and_a_report(
    copy: Path, blind_observer: str
) -> None:
    damaged = {
        **DEMO,
        "convert": "[keras:float32, tflite:float32, tflite:int8]",
        "calibration.observer": blind_observer,
        "verify.min_agreement_int8": 0,
        "verify.max_mean_drift_int8": 10,
        "gate": '["macro_auc >= parent - 0.02 @ 0.95"]',
    }
    call = call_lesiontk("demo", "--json", *set_keys(damaged), workspace=copy)
    assert call.code == 1, call.err
    assert "tflite:int8: `macro_auc >= parent - 0.02 @ 0.95` failed: the loss against" in call.err
    (result,) = [entry for entry in call.document["gate"] if entry["outcome"] == "failed"]
    assert result["engine"] == "tflite:int8"
    assert Path(call.document["report"]).is_file()


def test_an_engine_that_is_not_its_parent_is_kept_as_evidence_only(
    copy: Path, blind_observer: str
) -> None:
    call = call_lesiontk(
        "convert",
        "--to",
        "tflite:int8",
        "--set",
        f"calibration.observer={blind_observer}",
        "--set",
        "verify.min_agreement_int8=0.9",
        workspace=copy,
    )
    assert call.code == 1
    assert "tflite:int8 does not match its model" in call.err
    (failure,) = copy.glob("engine-*/failed.json")
    assert (failure.parent / "tflite_int8.tflite").is_file()
    assert not (failure.parent / "manifest.json").exists()
    document = json.loads((failure.parent / "verification.json").read_text())
    assert document["verification"]["passed"] is False
    assert len(document["signal"]["worst"]) == 5
    layers = (failure.parent / "layers.csv").read_text().splitlines()
    assert len(layers) == 1 + document["signal"]["layers"]


@pytest.mark.slow
def test_every_precision_can_be_asked_for_and_is_then_benchmarked(copy: Path) -> None:
    """Columns of the benchmark and the report come from the registry."""
    wanted = ("tflite:int16x8", "tflite:float16", "tflite:dynamic_int8", "onnx:float16")
    arguments = [part for target in wanted for part in ("--to", target)]
    call = call_lesiontk("convert", *arguments, "--json", workspace=copy)
    assert call.code == 0, call.err
    assert tuple(call.document) == wanted
    for target, engine in call.document.items():
        assert engine["verification"]["passed"]
        assert engine["verification"]["golden_agreement"]["n"] == 16
        assert engine["signal"]["n"] == 8
        assert (Path(engine["path"]).parent / "layers.csv").is_file()
        assert engine["precision"] == target.partition(":")[2]
    call = call_lesiontk("bench", "--json", workspace=copy)
    assert call.code == 0, call.err
    rows = {f"{row['backend']}:{row['precision']}": row for row in call.document["rows"]}
    assert {*TARGETS, *wanted} <= set(rows)
    for target in wanted:
        assert rows[target]["versus_parent"]["parent"] == f"{target.partition(':')[0]}:float32"
    call = call_lesiontk("report", "--json", workspace=copy)
    assert call.code == 0, call.err
    page = Path(call.document["report"]).read_text()
    assert all(target in page for target in wanted)
    assert "Signal-to-noise ratio of the layers" in page


def test_weights_of_seven_bits_are_made_where_they_help_and_said(copy: Path) -> None:
    call = call_lesiontk("quantize", "--int8", "--reduce-range", "--json", workspace=copy)
    assert call.code == 0, call.err
    bits = {target: e["quantization"]["weight_bits"] for target, e in call.document.items()}
    assert bits == {"tflite:int8": 8, "onnx:int8": 7}
    assert all(e["quantization"]["corrected_biases"] > 0 for e in call.document.values())
