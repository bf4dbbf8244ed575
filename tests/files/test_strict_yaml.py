"""YAML is read only as far as it is small, flat and unambiguous; an error stays short."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
import yaml

from lesiontk.errors import DataError
from lesiontk.files.strict_yaml import BYTES, DEPTH, NODES, load_yaml, read_yaml


def bomb(levels: int) -> str:
    """Ten aliases a level: a few hundred bytes that stand for 10**levels values."""
    lines = ["a0: &a0 x"]
    for n in range(1, levels):
        lines.append(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]")
    return "\n".join(lines)


def merge_bomb(levels: int) -> str:
    lines = ["a0: &a0 {k: v}"]
    for n in range(1, levels):
        lines.append(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}, *a{n - 1}]}}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\na: 2", "duplicate key a in line 1, column 1"),
        ("{a: {b: 1, c: 2, b: 3}}", "duplicate key b"),
        (bomb(30), f"more than {NODES:,} keys and values"),
        (merge_bomb(60), f"more than {NODES:,} keys and values"),
        ("a: &a [*a]", "the alias [*]a is inside its own anchor"),
        ("a: &a {b: {c: *a}}", "the alias [*]a is inside its own anchor"),
        ("a: *nowhere", "found undefined alias 'nowhere'"),
        ("[" * (DEPTH + 1) + "]" * (DEPTH + 1), f"nested more than {DEPTH} levels"),
        ("[" * 100_000, f"nested more than {DEPTH} levels"),
        ("- " * 100_000, f"nested more than {DEPTH} levels"),
        ("{" * 500, f"nested more than {DEPTH} levels"),
        ("\n".join(f"key{n}: {n}" for n in range(30_000)), f"more than {NODES:,} keys and values"),
        ("x" * (BYTES + 1), "1,000,001 characters; expected at most 1,000,000"),
        ("a: 2026-13-45", "a value cannot be read"),
        ("a: " + "9" * 5000, "a value cannot be read"),
        ("a: !!timestamp mole", "a value cannot be read"),
        ("a: !!int mole", "a value cannot be read"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("? [a]\n: 1", "found unhashable key"),
        ("a: [1", "in line 1"),
        ("a: \0", "special characters are not allowed"),
        ("\t- a", "in line 1, column 1"),
        ("'" + "x" * 5000, "in line 1"),
    ],
)
def test_what_is_too_large_or_ambiguous_is_refused_in_a_short_error(text: str, reason: str) -> None:
    with pytest.raises(yaml.YAMLError, match=reason) as caught:
        load_yaml(text)
    assert len(str(caught.value)) < 300


def test_what_a_person_writes_is_read() -> None:
    """The twin: aliases, merges, depth and size within the bounds."""
    text = "base: &base {epochs: 3, when: 2026-11-29}\nmore: {<<: *base, seed: 7}\nagain: [*base]\n"
    base = {"epochs": 3, "when": date(2026, 11, 29)}
    assert load_yaml(text) == {"base": base, "more": {**base, "seed": 7}, "again": [base]}
    deep: object = load_yaml("[" * (DEPTH - 1) + "1" + "]" * (DEPTH - 1))
    for _ in range(DEPTH - 1):
        (deep,) = deep  # type: ignore[misc]
    assert deep == 1
    many = load_yaml("\n".join(f"key{n}: {n}" for n in range(NODES // 2 - 1)))
    assert len(many) == NODES // 2 - 1


def test_a_file_is_read_only_if_it_is_one(tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_bytes(b"\xef\xbb\xbftitle: mole\n")
    assert read_yaml(tmp_path / "task.yaml", "task") == {"title": "mole"}
    with pytest.raises(DataError, match=r"task .* is a folder"):
        read_yaml(tmp_path, "task")
    (tmp_path / "large").write_bytes(b"#" * (BYTES + 1))
    with pytest.raises(DataError, match="expected at most 1,000,000"):
        read_yaml(tmp_path / "large", "task")
