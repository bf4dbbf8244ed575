"""YAML of a bounded size, in which a duplicate key is an error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lesiontk.errors import shorten
from lesiontk.files.regular_file import read_regular_text

BYTES = 1_000_000
NODES = 10_000
"""Maximum number of keys and values; the target of an alias counts at each use."""
DEPTH = 40


class _StrictLoader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key, count in keys.items():
            if count > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"duplicate key {shorten(key)}", node.start_mark
                )
        return super().construct_mapping(node, deep)


def load_yaml(text: str) -> Any:
    """Return the document of a YAML text.

    Raises ``yaml.YAMLError``, with line and column where known, for invalid YAML, for duplicate
    keys, and for documents beyond `BYTES`, `NODES` or `DEPTH`.
    """
    if len(text) > BYTES:
        raise yaml.YAMLError(f"it has {len(text):,} characters; expected at most {BYTES:,}")
    try:
        _check_size(yaml.parse(text, yaml.SafeLoader))
        return yaml.load(text, _StrictLoader)
    except yaml.MarkedYAMLError as error:
        raise yaml.YAMLError(_describe(error)) from error
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        # PyYAML raises it for impossible values such as 2026-13-45
        raise yaml.YAMLError(f"a value cannot be read: {shorten(str(error))}") from error


def read_yaml(path: Path, what: str) -> Any:
    """Return the document of a YAML file; `what` names it in errors.

    Raises `DataError` if it cannot be opened or is not text, ``yaml.YAMLError`` as `load_yaml`.
    """
    return load_yaml(read_regular_text(path, what, limit=BYTES))


def _check_size(events: Iterator[yaml.Event]) -> None:
    """Count nodes before anything is built: aliases of aliases expand exponentially.

    It is not recursive, so that a deep document cannot exhaust the stack.
    """
    complete: dict[str | None, int] = {}  # anchor -> nodes behind it
    counts = [0]
    anchors: list[str | None] = [None]
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in anchors:
                raise yaml.YAMLError(
                    f"the alias *{shorten(str(event.anchor))} is inside its own anchor"
                )
            counts[-1] += complete.get(event.anchor, 1)  # the composer reports an unknown alias
        elif isinstance(event, yaml.ScalarEvent):
            counts[-1] += 1
            if event.anchor:
                complete[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            counts.append(1)
            anchors.append(event.anchor)
        elif isinstance(event, yaml.CollectionEndEvent):
            count, anchor = counts.pop(), anchors.pop()
            counts[-1] += count
            if anchor:
                complete[anchor] = count
        if len(counts) > DEPTH:
            raise yaml.YAMLError(f"it is nested more than {DEPTH} levels deep")
        if sum(counts) > NODES:
            raise yaml.YAMLError(f"it has more than {NODES:,} keys and values")


def _describe(error: yaml.MarkedYAMLError) -> str:
    """Return the problem and its position, without the line, which may be of any length."""
    mark = error.problem_mark or error.context_mark
    where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    what = ", ".join(part for part in (error.context, error.problem) if part)
    return f"{shorten(what)}{where}"
