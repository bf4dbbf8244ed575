"""The files that a bundle carries: old enough Python, few packages, the toolkit's own pixels."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesiontk.backends.onnx import int8_kernels
from lesiontk.backends.tensorrt import plan_cache
from lesiontk.data import crop, dicom_image, image_container, picture_decoder
from lesiontk.data.enhance import ENHANCEMENTS
from lesiontk.deploy import runner
from lesiontk.deploy.runner import decision
from lesiontk.deploy.target import TENSORRT
from lesiontk.evaluate import input_checks
from lesiontk.evaluate.metrics import ROW_SUM_TOLERANCE
from lesiontk.evaluate.operating_point import (
    OperatingPoint,
    OperatingPointScorer,
    score_positive,
)
from lesiontk.evaluate.temperature import apply_temperature
from lesiontk.files import whole_files
from tests.deploy.bundles import make_bundle

FOLDER = Path(str(runner.__file__)).parent
ENHANCE = sorted({Path(str(sys.modules[f.__module__].__file__)) for _, f in ENHANCEMENTS.items()})
CARRIED = [
    Path(str(module.__file__))
    for module in (crop, dicom_image, image_container, picture_decoder, input_checks, whole_files)
]
FILES = [
    *(path for path in sorted(FOLDER.glob("*.py")) if path.name != "__init__.py"),
    *CARRIED,
    Path(int8_kernels.__file__),
    *(Path(plan_cache.__file__).with_name(name) for name in (TENSORRT.file, *TENSORRT.parts)),
    *ENHANCE,
]
CARRIED_FROM = (
    "lesiontk.backends.onnx.", "lesiontk.backends.tensorrt.", "lesiontk.data.",
    "lesiontk.deploy.runner", "lesiontk.evaluate.", "lesiontk.files.",
)  # fmt: skip
PACKAGES = {
    "litert_runtime.py": {"numpy", "ai_edge_litert"},
    "onnx_runtime.py": {"numpy", "onnxruntime"},
    "int8_kernels.py": {"numpy", "onnxruntime"},
    "cuda_bindings.py": {"numpy", "pycuda", "cuda"},
    "plan_runner.py": {"numpy"},
    "classifier.py": {"numpy", "PIL"},  # the latter when a picture is read
    "signature.py": {"cryptography"},  # when a key is trusted
    "picture_decoder.py": {"numpy", "PIL"},
    "crop.py": {"numpy", "PIL"},
    "dicom_image.py": {"numpy", "PIL", "pydicom"},
}
BUNDLED = {path.stem for path in FILES}
PYTHON38 = Path(os.environ.get("LESIONTK_PYTHON38", ""))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_is_written_in_python_3_8(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    names = {
        node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
        for node in ast.walk(tree)
    }
    assert not names & {"removeprefix", "removesuffix", "pairwise", "batched"}
    calls = {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    assert not calls & {"strict", "slots", "kw_only"}  # of zip and dataclass, from 3.10
    with pytest.raises(SyntaxError):
        ast.parse("match a:\n    case 1: pass", feature_version=(3, 8))


def find_annotations(tree: ast.AST) -> set[int]:
    """Return the ids of all nodes within annotations."""
    return {
        id(part)
        for node in ast.walk(tree)
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if annotation is not None
        for part in ast.walk(annotation)
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_its_types_are_not_evaluated_where_3_8_knows_them_not(path: Path) -> None:
    """``dict[str, Any] | None`` in a signature is text, thanks to the import from __future__."""
    tree = ast.parse(path.read_text())
    first = next(node for node in tree.body if isinstance(node, ast.ImportFrom))
    assert (first.module, [name.name for name in first.names]) == ("__future__", ["annotations"])
    annotated = find_annotations(tree)
    unions = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr)
        and id(node) not in annotated and not isinstance(node.left, ast.Call)
    ]  # fmt: skip
    assert not [text for text in unions if "None" in text]


SUBSCRIPTED = {
    "dict", "list", "tuple", "set", "frozenset", "type", "Callable", "Iterable", "Iterator",
    "Mapping", "Sequence", "AbstractContextManager", "Counter", "Queue", "SimpleQueue",
}  # fmt: skip
"""Types that Python 3.8 cannot subscript; in an annotation it does not try to."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_type_is_subscripted_outside_annotations(path: Path) -> None:
    tree = ast.parse(path.read_text())
    annotated = find_annotations(tree)
    evaluated = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and id(node) not in annotated
        and getattr(node.value, "attr", getattr(node.value, "id", "")) in SUBSCRIPTED
    ]  # fmt: skip
    assert not evaluated


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_needs_few_packages_and_nothing_of_lesiontk(path: Path) -> None:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = str(node.module)
            if module.startswith(CARRIED_FROM):
                inner = [module.rpartition(".")[2]]
                names = inner if inner != ["runner"] else [name.name for name in node.names]
                assert set(names) <= BUNDLED | {"gradient"}
                continue  # its copy in the bundle imports the copy
            found.add(module.split(".")[0])
    allowed = PACKAGES.get(path.name, {"numpy", "cv2"} if path in ENHANCE else {"numpy"})
    assert found - set(sys.stdlib_module_names) <= allowed


@pytest.mark.skipif(not PYTHON38.is_file(), reason="LESIONTK_PYTHON38 names no Python 3.8")
def test_it_runs_on_python_3_8(tmp_path: Path) -> None:
    """With that Python's NumPy, Pillow and onnxruntime: the oldest that a board may have."""
    folder = make_bundle(tmp_path / "bundle", "onnx_int8.onnx")
    done = subprocess.run(
        [PYTHON38, folder / "run.py", "self-test", "--json", "--rounds", "1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["python"].startswith("3.8.")
    done = subprocess.run(
        [PYTHON38, folder / "run.py", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_its_licence_is_that_of_the_toolkit() -> None:
    assert (FOLDER / "LICENSE").read_text() == (Path(__file__).parents[2] / "LICENSE").read_text()


@given(
    st.lists(st.floats(0, 1, width=32), min_size=7, max_size=7).filter(lambda row: sum(row) > 0.1),
    st.sets(st.sampled_from("abcdefg"), min_size=1, max_size=6),
    st.floats(0.05, 20),
)
def test_it_decides_as_evaluation_does(
    row: list[float], positive: set[str], temperature: float
) -> None:
    values = (np.array(row) / sum(row)).astype(np.float32)
    labels, chosen = list("abcdefg"), sorted(positive, reverse=True)
    (score,) = score_positive(values[np.newaxis], labels, chosen)
    for threshold in (float(score), float(np.nextafter(score, 2))):
        point = OperatingPoint("given", min(threshold, 1.0), tuple(chosen))
        said = decision.decide(values, labels, point, temperature)
        scorer = OperatingPointScorer(point, np.array([0]), values[np.newaxis], labels)
        assert said["positive"] == bool(scorer.called[0])
        assert said["score"] == round(float(score), 6)
    confidence = apply_temperature(values[np.newaxis], temperature).max()
    assert said["confidence"] == pytest.approx(confidence, abs=2e-6)
    assert said["label"] == labels[int(values.argmax())]


def test_it_takes_for_probabilities_what_evaluation_does() -> None:
    assert decision.SUM_TOLERANCE == ROW_SUM_TOLERANCE
