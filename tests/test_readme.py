"""The commands and the code of README and docs run as they are written, on small data."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from lesiontk.backends.keras.backend import MEMBER
from lesiontk.cli.main import cli
from lesiontk.data.synthetic.dataset import render_view, write_synthetic_dataset
from tests.deploy.keys import write_keys
from tests.documentation import DOCS, PAGES, README, ROOT, blocks_of
from tests.encoders import write_encoder
from tests.measuring import measuring_here

# So small that a run takes seconds; the commands themselves are those of the pages.
SMALL = [
    "train.epochs=1", "train.batch_size=16", "train.mixed_precision=false", "data.image_size=32",
    "data.synthetic.lesions=70", "data.synthetic.image_size=40", "calibration.images=16",
    "verify.min_agreement_int8=0", "verify.min_agreement_half=0", "verify.min_agreement_qat=0",
    "evaluate.resamples=100", "bench.rounds=20", "gate=[balanced_accuracy >= 0]",
]  # fmt: skip


SPACE: dict[str, Any] = {
    "recipe": "cnn_7class",
    "set": yaml.safe_load("{" + ", ".join(item.replace("=", ": ", 1) for item in SMALL) + "}"),
    "vary": {"target": ["tflite:int8", "tflite:float16"]},
    "sampler": "grid",
}
"""A search for a page that supposes one."""
ELSEWHERE = re.compile(r"USER@|\b10\.0\.0\.")
"""Another machine in a command."""


def lines_of(page: Path) -> list[str]:
    """Return the commands of a page's console blocks, in their order."""
    return [line for block in blocks_of(page, "console") for line in block if line]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the reader has it: HAM10000, images, an encoder, published engines."""
    folder = tmp_path_factory.mktemp("desk")
    write_synthetic_dataset(folder / "HAM10000", lesions=70, image_size=40, seed=3)
    picture = next((folder / "HAM10000").glob("*/*.jpg"))
    (folder / "picture.jpg").write_bytes(picture.read_bytes())
    (folder / "benchmarks").symlink_to(ROOT / "benchmarks")
    write_encoder(folder / "ENCODER.onnx", size=224)
    write_keys(folder)
    for diagnosis, code in (("melanoma", "mel"), ("naevus", "nv"), ("wart", "bkl")):
        own = folder / "my_images" / diagnosis
        own.mkdir(parents=True)
        for lesion in range(14):
            view = Image.fromarray(render_view(code, lesion, 0, 40))
            view.save(own / f"{code}_{lesion}.png")
    return folder


@pytest.fixture(scope="module", autouse=True)
def measured_here() -> Iterator[None]:
    """Engines are measured in this process."""
    with measuring_here():
        yield


@pytest.fixture(scope="module")
def workspace(desk: Path) -> Path:
    """The workspace of a reader who ran the README's first commands: a model and its engines."""
    folder = desk / "lesiontk-workspace"
    for words in (_shrink(["train"]), ["quantize", "--int8"], ["bench"]):
        result = CliRunner().invoke(cli, words, env={"LESIONTK_WORKSPACE": str(folder)})
        assert result.exit_code == 0, f"{result.output} {result.exception!r}"
    return folder


@pytest.fixture
def folder(desk: Path, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for a page: what is on the desk, and a copy of the workspace."""
    for entry in desk.iterdir():
        if entry != workspace:
            (tmp_path / entry.name).symlink_to(entry)
    shutil.copytree(workspace, tmp_path / workspace.name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LESIONTK_WORKSPACE", raising=False)
    return tmp_path


def _forget_split(words: list[str]) -> list[str]:
    """Import a copy that does not say what it was trained on: the images here are made up."""
    if words[0] != "import" or "--help" in words:
        return words
    source, copy = Path(words[1]), Path("nobody_knows_whose.keras")
    with zipfile.ZipFile(source) as described, zipfile.ZipFile(copy, "w") as plain:
        for name in described.namelist():
            if name != MEMBER:
                plain.writestr(name, described.read(name))
    return [words[0], str(copy), *words[2:]]


def _name_teacher(words: list[str]) -> list[str]:
    """Put teachers of this folder in the place of those that a page names."""
    trained = min(Path("lesiontk-workspace").glob("model-*"), key=lambda path: path.stat().st_mtime)
    here = {"latest:efficientnet_lite0_7class": trained.name}
    for encoder in Path("lesiontk-workspace").glob("encoder-*"):
        here["NAME"] = encoder.name
    return [here.get(word, word) for word in words]


def _name_benchmarks(words: list[str]) -> list[str]:
    """Put two benchmarks of this folder in the place of those that a page compares."""
    if words[:2] != ["report", "--compare"]:
        return words
    result = CliRunner().invoke(cli, ["bench", "--fresh"])
    assert result.exit_code == 0, result.output
    first, second = sorted(path.name for path in Path("lesiontk-workspace").glob("benchmark-*"))[:2]
    return [*words[:2], first, second, *words[4:]]


def _shrink(words: list[str]) -> list[str]:
    if words[0] not in ("train", "run", "demo", "import", "encoder"):
        return words  # the others take the model's recipe
    if words[0] == "encoder":  # of the images that the student was trained on
        words = [word for word in words if word not in ("--data", "HAM10000")]
        words = ["demo" if word == "cnn_7class" else word for word in words]
    for option in {"--folds", "--seeds"} & {*words}:
        words[words.index(option) + 1] = "2"
    own_size = ["data.image_size=32"] if words[0] == "import" else []
    return [*words, *(part for i in SMALL if i not in own_size for part in ("--set", i))]


def test_the_readme_shows_the_commands_that_matter() -> None:
    text = "\n".join(lines_of(README))
    for command in ("make demo", "make test", "lesiontk train", "lesiontk quantize --int8"):
        assert command in text


def test_the_pages_show_most_commands() -> None:
    """What runs here; reference pages list the rest."""
    shown = {tuple(line.split()[1:3]) for page in PAGES for line in lines_of(page)}
    for command in (
        "train", "quantize", "bench", "run", "predict", "evaluate", "bundle", "doctor", "convert",
        "report", "ls", "lineage", "verify", "sensitivity", "prune", "resize", "qat", "import",
    ):  # fmt: skip
        assert any(words[0] == command for words in shown), command
    for pair in (
        ("data", "check"), ("calibration", "draw"), ("calibration", "show"),
        ("calibration", "check"), ("calibration", "stability"), ("gate", "power"),
        ("recipe", "new"), ("recipe", "show"),
    ):  # fmt: skip
        assert pair in shown


def test_make_knows_the_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    text = "\n".join(page.read_text() for page in PAGES)
    targets = set(re.findall(r"(?:^|`)make ([a-z0-9-]+)", text, flags=re.MULTILINE))
    assert {"demo", "test", "docs", "setup"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_the_options_of_the_commands_exist() -> None:
    for page in PAGES:
        for line in lines_of(page):
            words = shlex.split(line, comments=True)
            if words and words[0] == "lesiontk":
                result = CliRunner().invoke(cli, [*words[1:], "--help"])
                assert result.exit_code == 0, f"{page.name}: {line}: {result.output}"


def test_an_option_that_does_not_exist_is_no_help() -> None:
    assert CliRunner().invoke(cli, ["train", "--data", "x", "--nonsense", "--help"]).exit_code == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if "\nlesiontk" in page.read_text()], ids=lambda page: page.stem
)
def test_the_commands_of_a_page_run_in_their_order(page: Path, folder: Path) -> None:
    for line in lines_of(page):
        words = shlex.split(line)
        if words[0] == "python":
            subprocess.run([sys.executable, *words[1:]], check=True)
        if words[0] != "lesiontk":
            continue
        if words[1:3] == ["data", "fetch"] or ELSEWHERE.search(line):
            words = [*words, "--help"]  # what it does is tested against servers on this machine
        if words[1] == "search" and words[2].endswith(".yaml") and not Path(words[2]).exists():
            Path(words[2]).write_text(yaml.safe_dump(SPACE))
        result = CliRunner().invoke(
            cli, _shrink(_name_benchmarks(_name_teacher(_forget_split(words[1:]))))
        )
        assert result.exit_code == 0, f"{line}: {result.output} {result.exception!r}"
        if words[1:3] == ["search", "init"]:
            space = yaml.safe_load(Path(words[3]).read_text())
            space |= {"trials": 3, "set": {**space["set"], **SPACE["set"]}}
            Path(words[3]).write_text(yaml.safe_dump(space))


@pytest.mark.slow
@pytest.mark.parametrize("page", [README, DOCS / "python.md"], ids=lambda page: page.stem)
def test_the_python_code_of_a_page_runs(
    page: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = dict(item.split("=", 1) for item in SMALL)
    settings = {key: yaml.safe_load(value) for key, value in small.items()}
    code = "\n".join(line for block in blocks_of(page, "python") for line in block)
    training = 'data="HAM10000"'
    assert code.count(training) == 1
    script = folder / "example.py"
    script.write_text(code.replace(training, f"{training}, set={settings!r}"))
    runpy.run_path(str(script))
    printed = capsys.readouterr().out
    assert "tflite:int8" in printed
    assert "picture.jpg" in printed
