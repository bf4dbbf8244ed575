"""The ONNX operators that each version of TensorRT imports, as data with its source."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from lesiontk.backends.tensorrt.findings import Finding
from lesiontk.backends.tensorrt.versions import parse_version
from lesiontk.errors import UsageError
from lesiontk.files.strict_yaml import load_yaml

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True)
class OperatorTable:
    """What the parser of one version accepts: operators of ONNX's own domain, up to an opset."""

    version: str
    source: str
    max_opset: int
    operators: frozenset[str]


@cache
def read_tables() -> tuple[OperatorTable, ...]:
    """Return the tables, oldest first."""
    folder = resources.files("lesiontk.backends.tensorrt")
    document = load_yaml(folder.joinpath("operators.yaml").read_text(encoding="utf-8"))
    tables: dict[str, OperatorTable] = {}
    for version, entry in document.items():
        known = frozenset(entry["operators"].split())
        if "extends" in entry:
            known |= tables[entry["extends"]].operators
        tables[version] = OperatorTable(version, entry["source"], int(entry["max_opset"]), known)
    return tuple(sorted(tables.values(), key=lambda table: parse_version(table.version)))


def find_table(version: str) -> OperatorTable:
    """Return the newest table not newer than `version`. Raises `UsageError` without one.

    Operators were only ever added, so an older table lists nothing that is missing.
    """
    fitting = [t for t in read_tables() if parse_version(t.version) <= parse_version(version)]
    if not fitting:
        raise UsageError(
            f"no operator table for TensorRT {version}; expected "
            f"{read_tables()[0].version} or later."
        )
    return fitting[-1]


def check_operators(model: onnx.ModelProto, version: str) -> tuple[Finding, ...]:
    """Return every node that the parser of a TensorRT version does not import."""
    table = find_table(version)
    check = f"operators {table.version}"
    found = [
        Finding(check, model.graph.name or "-", "opset", f"the graph is in opset {entry.version}; "
                f"TensorRT {version} reads up to {table.max_opset}")
        for entry in model.opset_import
        if entry.domain in ("", "ai.onnx") and entry.version > table.max_opset
    ]  # fmt: skip
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            reason = f"an operator of the domain {node.domain}, which TensorRT does not import"
        elif node.op_type not in table.operators:
            reason = f"TensorRT {version} does not import it"
        else:
            continue
        found.append(Finding(check, node.name, node.op_type, reason))
    return tuple(found)
