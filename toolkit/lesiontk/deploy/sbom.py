"""The software bill of materials of a bundle: CycloneDX 1.6 as JSON (ECMA-424)."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from lesiontk.evaluate.assessment import Assessment
from lesiontk.files.hashing import hash_file
from lesiontk.records import EngineSpec

SBOM: Final = "sbom.cdx.json"
REQUIREMENT: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:==\s*([^\s;\\]+))?")


def render_sbom(
    folder: Path,
    engines: Mapping[str, tuple[EngineSpec, Assessment | None]],
    *,
    requirements: str,
    version: str,
) -> str:
    """Return the document for the files of a bundle's folder.

    `engines` maps the file of each engine, the preferred one first, to what it is. Components: each
    model with its data, licence and results, each file of the runner with its hash, and each of the
    `requirements`, lines as for pip. The serial number follows from the hashes: the same bundle has
    the same document.
    """
    engine = next(iter(engines))
    spec, _ = engines[engine]
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    hashes = {path.relative_to(folder).as_posix(): hash_file(path) for path in files}
    identity = "".join(f"{digest}  {name}\n" for name, digest in hashes.items())
    components = [
        *(_describe_model(name, hashes[name], *known) for name, known in engines.items()),
        *_describe_runner(hashes, version),
        *_describe_requirements(requirements.splitlines()),
    ]
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, identity)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": "bundle",
                "name": f"{spec.recipe} {spec.backend}:{spec.precision}",
                "version": hashes[engine][:12],
                "description": spec.notice,
            },
            "tools": {
                "components": [{"type": "application", "name": "lesiontk", "version": version}]
            },
        },
        "components": components,
        "dependencies": [
            {"ref": "bundle", "dependsOn": [component["bom-ref"] for component in components]}
        ],
    }
    return json.dumps(document, indent=1) + "\n"


def _describe_model(
    engine: str, digest: str, spec: EngineSpec, assessment: Assessment | None
) -> dict[str, Any]:
    test = assessment.test if assessment else None
    metrics = [] if test is None else [
        {"type": name, "value": f"{estimate.value:.4f}", "slice": f"test split, n = {test.n}"}
        for name, estimate in test.metrics.items()
        if estimate.value is not None
    ]  # fmt: skip
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{engine}",
        "name": engine,
        "version": digest[:12],
        "description": f"{spec.recipe}, {spec.precision}: {', '.join(spec.labels)}. {spec.notice}",
        "hashes": [{"alg": "SHA-256", "content": digest}],
        **({"licenses": [{"license": {"name": spec.licence}}]} if spec.licence else {}),
        "modelCard": {
            "modelParameters": {
                "task": "image classification",
                "inputs": [{"format": f"uint8 RGB {list(spec.input_shape)}"}],
                "outputs": [{"format": f"float32 probabilities of {', '.join(spec.labels)}"}],
            },
            "quantitativeAnalysis": {"performanceMetrics": metrics},
            "considerations": {
                "users": ["researchers and engineers"],
                "useCases": ["research; not diagnosis or treatment decisions"],
            },
        },
    }


def _describe_runner(hashes: dict[str, str], version: str) -> list[dict[str, Any]]:
    code = (name for name in hashes if name.endswith((".py", ".js", ".html", ".css", ".wasm")))
    return [
        {
            "type": "file",
            "bom-ref": f"file:{name}",
            "name": name,
            "version": version,
            "hashes": [{"alg": "SHA-256", "content": hashes[name]}],
        }
        for name in code
    ]


def _describe_requirements(lines: Iterable[str]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        match = REQUIREMENT.match(line.strip())
        if match is None:  # a comment, or the hash of a line before
            continue
        name, pinned = match[1].lower().replace("_", "-"), match[2]
        identity = f"{name}@{pinned}" if pinned else name  # one version for some Pythons each
        found.setdefault(
            identity,
            {
                "type": "library",
                "bom-ref": f"pip:{identity}",
                "name": name,
                **({"version": pinned} if pinned else {}),
                "purl": f"pkg:pypi/{identity}",
                "description": line.strip().rstrip("\\").strip(),
            },
        )
    return list(found.values())
