"""The documentation fits the code: reference pages, figure, links, commands, length."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import click
import pytest

from lesiontk.cli.main import cli
from lesiontk.recipe import Recipe
from tests.documentation import DOCS, PAGES, README, ROOT, blocks_of
from tests.loose_modules import load_module

RENEW = "run `python docs/generate.py` and commit docs/reference"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    return load_module(DOCS / "generate.py")


def test_the_reference_is_what_the_code_says(generate: ModuleType) -> None:
    pages: dict[str, str] = generate.render_pages()
    assert {path.name for path in (DOCS / "reference").iterdir()} == set(pages), RENEW
    for name, text in pages.items():
        assert (DOCS / "reference" / name).read_text() == text, f"{name}: {RENEW}"


def test_every_key_of_a_recipe_is_listed_and_explained(generate: ModuleType) -> None:
    page = generate.recipe_page()

    def walk(document: object, path: str) -> list[str]:
        if isinstance(document, dict) and document:
            return [key for k, v in document.items() for key in walk(v, f"{path}.{k}")]
        return [path.lstrip(".")]

    keys = walk(Recipe(name="any").model_dump(), "")
    assert len(keys) > 60
    for key in keys:
        if key != "imported":
            assert f"| `{key}` |" in page, key
    for line in page.splitlines():
        if line.startswith("| `"):
            assert not line.endswith("|  |"), f"no description in the code: {line}"


def test_every_command_is_listed(generate: ModuleType) -> None:
    page = generate.commands_page()
    with click.Context(cli) as context:
        for name in cli.list_commands(context):
            assert f"\n## lesiontk {name}\n" in page
    assert "\n### lesiontk data fetch\n" in page
    assert "--keep-macs" in page


def test_the_figure_is_what_the_results_say() -> None:
    draw_results = load_module(DOCS / "draw_results.py")
    pairs = [draw_results.read_pair(recipe) for recipe in draw_results.RECIPES]
    assert draw_results.FIGURE.read_text() == draw_results.draw(pairs), (
        "run `python docs/draw_results.py`"
    )


def test_the_readme_fits_a_screen_and_a_half() -> None:
    assert len(README.read_text().splitlines()) <= 120


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as Markdown renderers make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors_of(target), link
        if page != README:
            assert target.is_relative_to(DOCS), f"{link}: mkdocs builds docs/ alone"


def commands_named_in(page: Path) -> list[str]:
    """Return the command lines of a page: of its console blocks, and within its text."""
    text = page.read_text()
    inline = re.findall(r"`(lesiontk [a-z][^`\n]*)`", re.sub(r"```.*?```", "", text, flags=re.S))
    lines = [line for block in blocks_of(page, "console") for line in block]
    return [line for line in [*lines, *inline] if line.startswith("lesiontk ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_options_exist(page: Path) -> None:
    for line in commands_named_in(page):
        command: click.Command = cli
        words = shlex.split(line)[1:]
        with click.Context(cli) as context:
            while isinstance(command, click.Group):
                found = command.get_command(context, words.pop(0))
                assert found is not None, line
                command = found
        options = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
        for word in words:
            if word.startswith("--") and word != "--help":
                assert word.partition("=")[0] in options, f"{word} in: {line}"


def test_the_techniques_of_the_page_are_commands() -> None:
    named = re.findall(r"^\| `([\w-]+)` \|", (DOCS / "compression.md").read_text(), re.MULTILINE)
    assert len(named) > 5
    with click.Context(cli) as context:
        assert set(named) <= set(cli.list_commands(context))


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert listed == {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="mkdocs is in the extra `docs`")
def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict"]  # --quiet would pass warnings
    done = subprocess.run(
        [*build, "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "reference" / "recipe" / "index.html").is_file()
