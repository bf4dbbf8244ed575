"""The README's commands and code run as they stand, on small data."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from lesiontk.backends.keras.backend import MEMBER
from lesiontk.cli.main import cli
from lesiontk.data.synthetic.dataset import render_view, write_synthetic_dataset

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
LINES = [
    line.partition("  #")[0].strip()
    for language, block in BLOCKS
    if language == "console"
    for line in block.splitlines()
    if line.strip()
]
INLINE = re.findall(r"`(lesiontk [a-z][^`]*)`", README)
# So small that a run takes seconds; the commands themselves are the README's.
SMALL = [
    "train.epochs=1", "train.batch_size=16", "train.mixed_precision=false", "data.image_size=32",
    "data.synthetic.lesions=70", "data.synthetic.image_size=40", "calibration.images=16",
    "verify.min_agreement_int8=0", "evaluate.resamples=100", "bench.rounds=20",
    "gate=balanced_accuracy >= 0",
]  # fmt: skip


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the README's reader has it: HAM10000, a picture, the published engines."""
    folder = tmp_path_factory.mktemp("desk")
    write_synthetic_dataset(folder / "HAM10000", lesions=70, image_size=40, seed=3)
    picture = next((folder / "HAM10000").glob("*/*.jpg"))
    (folder / "picture.jpg").write_bytes(picture.read_bytes())
    (folder / "benchmarks").symlink_to(ROOT / "benchmarks")
    for diagnosis, code in (("melanoma", "mel"), ("naevus", "nv"), ("wart", "bkl")):
        own = folder / "my_images" / diagnosis
        own.mkdir(parents=True)
        for lesion in range(14):
            view = Image.fromarray(render_view(code, lesion, 0, 40))
            view.save(own / f"{code}_{lesion}.png")
    return folder


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


def _shrink(words: list[str]) -> list[str]:
    if words[0] not in ("train", "run", "demo", "import"):
        return words  # the others take the model's recipe
    own_size = ["data.image_size=32"] if words[0] == "import" else []
    return [*words, *(part for i in SMALL if i not in own_size for part in ("--set", i))]


def test_the_readme_shows_the_commands_that_matter() -> None:
    text = "\n".join(LINES)
    for command in ("make demo", "make test", "lesiontk train", "lesiontk quantize --int8"):
        assert command in text


def test_make_knows_the_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for line in LINES:
        if line.startswith("make "):
            assert re.search(rf"^{line.split()[1]}:", makefile, flags=re.MULTILINE), line


@pytest.mark.slow
def test_the_commands_run_in_the_order_they_stand(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.delenv("LESIONTK_WORKSPACE", raising=False)
    ran = []
    for line in [*LINES, *INLINE]:
        words = shlex.split(line)
        if words[0] == "python":
            subprocess.run([sys.executable, *words[1:]], check=True)
        if words[0] != "lesiontk":
            continue
        if words[1:3] == ["data", "fetch"]:
            words = [*words, "--help"]  # what it does is tested against a local server
        if words[1:] == ["run"] or "DIR" in words:
            continue  # prose about an option, not a command
        # What follows goes on with the model of the packaged recipes.
        apart = {"LESIONTK_WORKSPACE": "own"} if "clinic.yaml" in words else {}
        result = CliRunner().invoke(cli, _shrink(_forget_split(words[1:])), env=apart)
        assert result.exit_code == 0, f"{line}: {result.output} {result.exception!r}"
        ran.append(words[1])
    shown = {"train", "quantize", "bench", "run", "predict", "evaluate", "bundle", "doctor"}
    assert shown <= set(ran)


@pytest.mark.slow
def test_the_python_code_runs(
    desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = [block for language, block in BLOCKS if language == "python"]
    small = ", ".join(f'"{item}"' for item in SMALL)
    assert '["train.epochs=2"]' in code
    script = desk / "example.py"
    script.write_text(code.replace('["train.epochs=2"]', f"[{small}]"))
    monkeypatch.chdir(desk)
    runpy.run_path(str(script))
    printed = capsys.readouterr().out.split()
    assert printed[0] in ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
