"""Check whether TensorRT accepts a graph: rules, an operator table, the installed parser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from lesiontk.backends.tensorrt import on_device
from lesiontk.backends.tensorrt.findings import Finding, describe_findings, group_findings
from lesiontk.backends.tensorrt.graph import input_shape
from lesiontk.backends.tensorrt.installation import import_tensorrt
from lesiontk.backends.tensorrt.lint import lint_graph
from lesiontk.backends.tensorrt.operators import check_operators
from lesiontk.backends.tensorrt.targets import find_target
from lesiontk.errors import DataError, MissingRequirementError

VERSIONS = ("8.5", "8.6", "10.3", "10.15")
"""The default versions of a check: JetPack 5, 6.0, 6.1 and the latest."""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The checks of a graph and their findings.

    `parser` is the TensorRT whose parser read the graph; it is empty if none did, and `no_parser`
    is the reason.
    """

    versions: tuple[str, ...]
    findings: tuple[Finding, ...]
    parser: str = ""
    no_parser: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def to_document(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "versions": list(self.versions),
            "parser": self.parser or None,
            "no_parser": self.no_parser or None,
            "groups": [group.to_document() for group in group_findings(self.findings)],
            "findings": [finding.to_document() for finding in self.findings],
        }


def choose_versions(named: Sequence[str], target: str | None) -> tuple[str, ...]:
    """Return the versions named and those of a Jetson `target`, each once; `VERSIONS` for none."""
    wanted = (*named, *(find_target(target).tensorrt if target else ()))
    return tuple(dict.fromkeys(wanted)) or VERSIONS


def check_model(path: Path, versions: Sequence[str] = VERSIONS) -> CheckReport:
    """Return the check of an ONNX file for TensorRT `versions` and with the installed parser.

    Raises `DataError` for an invalid ONNX model.
    """
    model = load_model(path)
    found = list(lint_graph(model))
    for version in versions:
        found += check_operators(model, version)
    parser = no_parser = ""
    try:
        trt = import_tensorrt()
        found += parse_model(trt, path.read_bytes())
        parser = on_device.version_of(trt)
    except MissingRequirementError as error:
        no_parser = str(error)
    return CheckReport(tuple(versions), tuple(dict.fromkeys(found)), parser, no_parser)


def load_model(path: Path) -> onnx.ModelProto:
    """Return the model of an ONNX file. Raises `DataError` for an invalid file."""
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's and the checker's errors share no public base class
        raise DataError(f"{path.name} is not a valid ONNX model: {error}") from error
    return model


def parse_model(trt: Any, content: bytes) -> tuple[Finding, ...]:
    """Return the errors of TensorRT's parser; empty if it accepts the graph.

    Raises `MissingRequirementError` where there is no parser: without a driver, TensorRT creates no
    builder, which the parser needs.
    """
    name = on_device.version_of(trt)
    logger = on_device.make_logger(trt)
    try:
        builder = on_device.make_builder(trt, logger)
        on_device.parse_graph(trt, builder, logger, content)
    except on_device.RefusedGraphError as error:
        return tuple(Finding(name, n["node"], n["operator"], n["reason"]) for n in error.nodes)
    except on_device.MissingRequirementError as error:
        raise MissingRequirementError(f"{name}: {error}") from error
    return ()


def require_model(path: Path, versions: Sequence[str] = VERSIONS) -> CheckReport:
    """Return the report of a graph that passes. Raises `DataError` with each failing node."""
    report = check_model(path, versions)
    input_shape(onnx.load(path, load_external_data=False))
    if not report.passed:
        raise DataError(
            f"TensorRT does not accept {path.name} as intended: "
            f"{describe_findings(report.findings)}."
        )
    return report
