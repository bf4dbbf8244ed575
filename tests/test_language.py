"""Plain technical English: files and models do not speak, and verbs have the field's spelling."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXTS = sorted(
    path
    for folder, suffixes in (
        ("toolkit", ("py", "j2", "yaml")),
        ("recipes", ("py", "yaml")),
        ("docs", ("py", "md")),
        ("benchmarks", ("py",)),
    )
    for suffix in suffixes
    for path in (ROOT / folder).rglob(f"*.{suffix}")
    if "site-packages" not in path.parts
)
THINGS = (
    "artefact|back end|bundle|card|engine|file|gate|graph|image|layer|list|manifest|model|network|"
    "parent|recipe|report|runtime|stage|step|student|table|target|teacher|technique|tensor|version"
)
SPEECH = "answer|ask|believe|forget|hear|know|listen|promise|remember|say|speak|teach|tell|want"
PERSONIFIED = re.compile(rf"\b(?:{THINGS})s? (?:{SPEECH})s?\b", re.IGNORECASE)
BRITISH = re.compile(
    r"(?:equali|initiali|normali|optimi|quanti|reali|recogni|seriali|synchroni|synthesi)s"
    r"(?:e|ed|er|es|ing|ation)(?![a-z])",
    re.IGNORECASE,
)
KEPT = {"normalisation"}
"""The name of a layer in models that are published."""


def find_personified(text: str) -> list[str]:
    return PERSONIFIED.findall(re.sub(r'[\s#"]+', " ", text))


def find_british(text: str) -> list[str]:
    return [word for word in BRITISH.findall(text) if word.lower() not in KEPT]


@pytest.mark.parametrize("find", [find_personified, find_british])
def test_every_text_is_plain(find: Callable[[str], list[str]]) -> None:
    found = {str(path.relative_to(ROOT)): find(path.read_text(encoding="utf-8")) for path in TEXTS}
    assert not {path: words for path, words in found.items() if words}


def test_what_is_not_plain_would_be_found() -> None:
    assert find_personified('f"the model "\n    "says it"') == ["model says"]
    assert find_british("def normalise_pixels, optimisation") == ["normalise", "optimisation"]
    assert not find_personified("the file contains what `say` prints; models of a known file")
    assert not find_british("normalization, raise, noise, precise, promise")
