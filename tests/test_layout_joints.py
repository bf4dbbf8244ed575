"""What crosses a module boundary has its own type: a loose mapping is read and written at the edge.

A public function, field or alias of type ``dict[str, Any]`` or ``Mapping[str, Any]`` is permitted
where a document is read or written, which its name says, and for the reasons in `EXCEPTIONS`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "toolkit" / "lesiontk"
LOOSE = re.compile(r"\b(dict|Mapping|MutableMapping|OrderedDict)\[(str|Any), (Any|object)\]")
EDGE = re.compile(r"\w*document|document_from_\w+|upgrade|(read|write|parse)_\w+")
"""Names of functions that read or write a document, and of fields that are one."""

EXCEPTIONS = {
    "a part of a manifest, of bundle.json or of an engine's description, as it is written": """
        records.EngineSpec.extra records.ModelStep.change records.Ancestry.config
        records.ManifestHeader.config records.ManifestHeader.recipe
        records.Manifest.facts records.Manifest.measured records.Artefact.facts
        stage.StageOutput.facts stage.StageOutput.measured api.engine.Engine.facts
        api.stored.Stored.facts store.manifest.hash_content store.store.Store.build
        workflow.executor.StepBuild.recipe workflow.ray_worker.StepCall.recipe
        report.render.ReportData.recipe search.result.SearchResult.space
        deploy.target.Contents.bundle deploy.target.Contents.facts
        backends.tensorrt.plan_cache.open_engine deploy.runner.triton_runtime.open_engine
    """,
    "keys that a user chooses, such as those of a recipe: no code names them": """
        workflow.choose_recipe.Settings search.trial_record.Assignment
        search.space.Candidate.settings search.space.SearchSpace.set
        search.space.SearchSpace.vary recipe.recipe.Compression.options
        workflow.compress.compress_model workflow.search.run_search api.workspace.Workspace.search
    """,
    "what another project defines: layers of Keras, findings of TensorRT, options of a library": """
        compress.keras_layers.config_without_dtype models.imported_config.ModelFile.config
        models.imported_graph.Node.named models.imported_layers.ForeignLayer.config
        models.imported_operations.apply_operation stage.ADDED_LATER
        backends.backend.Backend.examine backends.backend.ConversionRecord.examination
        backends.engine_facts.EngineFacts.examination deploy.bundle.BundleFacts.details
        backends.tensorrt.backend.TensorRTBackend.examine
        workflow.ray_cluster.quiet_settings workflow.tracked_runs.flatten
        api.findings.table_of search.database.Dialect.options
    """,
    "one step of reading or writing a document": """
        document.Record.field_values recipe.renamed.rename_keys stage.split_reference
    """,
    "the result of a public function before it had a record": "api.fetch.fetch_data",
}
"""Reason -> the names, as ``module.Class.name``; one that is not found any more must go."""


def find_loose(body: Iterable[ast.stmt], scope: str) -> Iterator[str]:
    """Yield the public names of a module or class whose type is a loose mapping."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            taken = [*given.posonlyargs, *given.args, *given.kwonlyargs]
            found, types = node.name, [node.returns, *(each.annotation for each in taken)]
        elif isinstance(node, ast.AnnAssign):
            found, types = ast.unparse(node.target), [node.annotation]
        elif isinstance(node, ast.Assign):  # an alias would hide the type
            found, types = ast.unparse(node.targets[0]), [node.value]
        elif isinstance(node, ast.ClassDef):
            if not node.name.startswith("_"):
                yield from find_loose(node.body, f"{scope}.{node.name}")
            continue
        else:
            continue
        if (found.startswith("_") and not found.startswith("__")) or EDGE.fullmatch(found):
            continue
        if any(LOOSE.search(ast.unparse(each)) for each in types if each is not None):
            yield f"{scope}.{found}"


def test_no_loose_mapping_crosses_a_module_boundary() -> None:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found |= set(find_loose(ast.parse(path.read_text(encoding="utf-8")).body, name))
    known = {name for names in EXCEPTIONS.values() for name in names.split()}
    assert found == known


def test_a_loose_mapping_would_be_found() -> None:
    source = """
Alias = Mapping[str, Any]
def choose(options: dict[str, Any] | None) -> int: ...
def list_rows() -> list[Mapping[str, object]]: ...
def measure(*, name: str, by: Callable[[dict[str, Any]], bool]) -> None: ...
class Row:
    cells: Mapping[str, Any] = field(default_factory=dict)
    def __call__(self) -> dict[str, Any]: ...
    @property
    def keys(self) -> dict[str, Any]: ...
"""
    names = ("Alias", "choose", "list_rows", "measure", "Row.cells", "Row.__call__", "Row.keys")
    assert list(find_loose(ast.parse(source).body, "m")) == [f"m.{name}" for name in names]


def test_edges_and_what_stays_in_a_module_are_permitted() -> None:
    source = """
def read_choice(path: Path) -> dict[str, Any]: ...
def _merge(left: dict[str, Any]) -> None: ...
def count(names: Mapping[str, int]) -> int:
    found: dict[str, Any] = {}
class Row:
    document: Mapping[str, Any]
    def to_document(self) -> dict[str, Any]: ...
    @classmethod
    def upgrade(cls, document: dict[str, Any]) -> dict[str, Any]: ...
class _Inner:
    cells: dict[str, Any]
"""
    assert not list(find_loose(ast.parse(source).body, "m"))
