"""The pages of the documentation and their blocks of code."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
"""Written by hand; those in docs/reference are generated."""


def blocks_of(page: Path, language: str) -> list[list[str]]:
    """Return the lines of each block of a language, without trailing comments of a shell."""
    blocks = re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)
    comment = "  #" if language == "console" else "\0"
    return [
        [line.partition(comment)[0].rstrip() for line in block.splitlines()] for block in blocks
    ]
