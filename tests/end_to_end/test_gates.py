"""Gates on the command line: what they judge, what they refuse, and with which exit code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.chain import CHAIN, Chain, set_keys
from tests.end_to_end.command_line import call_lesiontk
from tests.measuring import measuring_here

ONE_IN_A_THOUSAND = "recall[mel] >= parent - 0.001 @ 0.95"


@pytest.fixture
def file(chain: Chain, tmp_path: Path) -> Iterator[Path]:
    """An engine file outside of any workspace; it is measured in this process."""
    with measuring_here():
        yield Path(shutil.copy(chain.engine("tflite:int8"), tmp_path / "tflite_int8.tflite"))


def test_a_file_is_judged_as_far_as_it_can_be(file: Path, tmp_path: Path) -> None:
    gates = ["size_mb <= 50", "median_ms <= 10000", "accuracy >= 0.1 @ 0.95"]
    options = [word for gate in gates for word in ("--gate", gate)]
    quick = ["--set", "bench.rounds=20", "--json"]
    call = call_lesiontk("bench", file, *options, *quick, workspace=tmp_path / "new")
    assert call.code == 0, call.err
    outcomes = [entry["outcome"] for entry in call.document["gate"]]
    assert outcomes == ["passed", "passed", "not_shown"]
    assert "`accuracy >= 0.1 @ 0.95` not shown: files are timed without labels" in call.err
    strict = ["--set", "unresolved=fail"]
    call = call_lesiontk("bench", file, *options, *quick, *strict, workspace=tmp_path / "new")
    assert call.code == 1
    call = call_lesiontk(
        "bench", file, "--gate", "size_mb <= 0.001", *quick, workspace=tmp_path / "new"
    )
    assert call.code == 1
    assert "`size_mb <= 0.001` failed: the figure is" in call.err


def test_a_gate_that_is_none_ends_with_exit_2_and_a_caret(file: Path, tmp_path: Path) -> None:
    call = call_lesiontk("bench", file, "--gate", "size_mb >= 5", workspace=tmp_path / "new")
    assert call.code == 2
    assert "for size_mb, lower is better; expected `<=`." in call.err
    assert "\n  size_mb >= 5\n          ^" in call.err


def test_an_evaluation_is_judged_beside_the_parent_or_on_images_alone(chain: Chain) -> None:
    gates = ("--gate", "macro_auc >= parent - 0.5 @ 0.95", "--gate", "size_mb <= 50")
    engine = chain.engine("tflite:int8").parent.name
    call = call_lesiontk("evaluate", engine, *gates, "--json", workspace=chain.workspace)
    assert call.code == 0, call.err
    auc, size = call.document["gate"]
    assert (auc["outcome"], auc["parent"]) == ("passed", "tflite:float32")
    assert size["outcome"] == "passed"
    images = chain.folder("dataset") / "images"
    folder = images if images.is_dir() else chain.folder("dataset")
    call = call_lesiontk(
        "evaluate", chain.engine("tflite:int8"), "--images", folder, "--include-seen", *gates,
        "--gate", "accuracy >= 0.999", "--json", workspace=chain.workspace,
    )  # fmt: skip
    assert call.code == 1, call.err
    assert "`accuracy >= 0.999` failed: the value is" in call.err
    outcomes = {entry["metric"]: entry["outcome"] for entry in call.document["gate"]}
    assert outcomes == {"macro_auc": "not_shown", "size_mb": "passed", "accuracy": "failed"}


def test_no_bundle_is_made_of_an_engine_whose_gate_is_not_shown(copy: Path, tmp_path: Path) -> None:
    change = ("--set", f'gate=["{ONE_IN_A_THOUSAND}"]')
    made = call_lesiontk("convert", "--to", "tflite:float16", *change, "--json", workspace=copy)
    assert made.code == 0, made.err
    engine = made.document["tflite:float16"]["artefact"]
    options = (engine, "--target", "linux-arm64", "--json")
    refused = call_lesiontk("bundle", *options, "--out", tmp_path / "board", workspace=copy)
    assert refused.code == 1, refused.err
    assert f"`{ONE_IN_A_THOUSAND}` not shown" in refused.err
    assert "lesiontk bundle --research-override" in refused.err
    assert not (tmp_path / "board").exists()
    accepted = call_lesiontk("bundle", *options, "--research-override", workspace=copy)
    assert accepted.code == 0, accepted.err
    folder = Path(accepted.document["path"])
    (entry,) = json.loads((folder / "bundle.json").read_text())["gates"]
    assert entry["outcome"] == "not_shown"
    bundle = json.loads((folder / "bundle.json").read_text())
    assert f"`{ONE_IN_A_THOUSAND}` not shown" in bundle["research_override"]
    assert bundle["research_override"] in bundle["notice"]
    assert "1 not shown." in (folder / "MODEL_CARD.md").read_text()


def test_the_power_of_a_split_is_shown_for_each_gate(chain: Chain) -> None:
    keys = set_keys({key: value for key, value in CHAIN.items() if key.startswith("data.")})
    call = call_lesiontk("gate", "power", "demo", *keys, "--json", workspace=chain.workspace)
    assert call.code == 0, call.err
    (power,) = call.document
    assert power["gate"].startswith("macro_auc >= parent - ")
    # On so few lesions those that were not seen bound both alike.
    assert 0 < power["alone"]["quantized"] <= power["alone"]["compressed"] < 1
    text = call_lesiontk("gate", "power", "demo", *keys, workspace=chain.workspace)
    assert "can pass" in text.out


def test_a_split_asks_for_no_gate(chain: Chain) -> None:
    keys = set_keys({key: value for key, value in CHAIN.items() if key.startswith("data.")})
    foreign = ("--set", "gate=recall[no_such_class] >= 0.5")
    call = call_lesiontk("data", "split", "demo", *keys, *foreign, workspace=chain.workspace)
    assert call.code == 0, call.err
    refused = call_lesiontk("run", "demo", "--dry-run", *keys, *foreign, workspace=chain.workspace)
    assert refused.code == 2
    assert "names the metric 'recall[no_such_class]'" in refused.err
