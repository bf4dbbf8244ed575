"""A new version of a tool rebuilds what was made with it, and nothing else.

The stages are the real ones with their keys; only their work is replaced by writing a small file.
"""

from __future__ import annotations

import importlib
import pkgutil
import tempfile
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lesiontk.stages
from lesiontk.backends import BACKENDS
from lesiontk.backends.learned_ranges import LEARNED
from lesiontk.recipe import BenchRule, EvaluateRule, QuantizeRule, SensitivityRule, VerifyRule
from lesiontk.records import Artefact
from lesiontk.stage import Context, Stage, StageConfig, StageInfo, StageOutput, StepId
from lesiontk.stages.bench import BenchConfig, BenchStage
from lesiontk.stages.bundle import BundleConfig, BundleStage
from lesiontk.stages.convert import ConvertConfig, ConvertStage
from lesiontk.stages.evaluate import EvaluateStage
from lesiontk.stages.prune import PruneConfig, PruneStage
from lesiontk.stages.ranges import RangesConfig, RangesStage
from lesiontk.stages.sensitivity import SensitivityConfig, SensitivityStage
from lesiontk.store import Store
from lesiontk.system.environment import version_of
from tests.artefacts import make_engine_facts

SomeStage = TypeVar("SomeStage", bound=Stage)
TARGETS = ("keras:float32", "tflite:float32", "tflite:int8", "onnx:float32", "onnx:int8",
           "tensorrt:int8")  # fmt: skip


def hollow(
    stage: type[SomeStage], facts: Mapping[str, Any] | None = None, file: str = "made.txt"
) -> SomeStage:
    """Return the stage with its key but without its work: what it makes is a constant."""

    def run(self: Any, parents: object, config: object, context: Context) -> StageOutput:
        (context.directory / file).write_text("constant")
        return StageOutput(dict(facts or {}))

    return type(f"Hollow{stage.__name__}", (stage,), {"run": run})()


class ImagesStage(Stage):
    info: ClassVar[StageInfo] = StageInfo("images", 1, {}, "images", StageConfig)

    def run(self, parents: object, config: object, context: Context) -> StageOutput:
        raise NotImplementedError


class ModelStage(ImagesStage):
    info: ClassVar[StageInfo] = StageInfo("model", 1, {}, "model", StageConfig)


class CalibrationStage(ImagesStage):
    info: ClassVar[StageInfo] = StageInfo("calibration", 1, {}, "calibration", StageConfig)


def build_run(store: Store, model_file: str = "made.txt") -> dict[str, Artefact]:
    """Return step -> artefact of a run over every back end; the model has a file of this name."""
    none = StageConfig()
    images = store.build(hollow(ImagesStage), none, {})
    calibration = store.build(hollow(CalibrationStage), none, {})
    model = store.build(hollow(ModelStage, file=model_file), none, {})
    base = {"images": images, "model": model}
    made: dict[str, Artefact] = {}
    for keep in ({"keep_macs": 0.5}, {"keep_latency": 0.5, "latency_on": "tflite:int8"}):
        name = f"prune {next(iter(keep))}"
        made[name] = store.build(hollow(PruneStage), PruneConfig(**keep), base)
    for target in TARGETS:
        name, precision = target.split(":")
        origin = BACKENDS.get(name).info.precisions[precision].derived_from
        source = model if origin == "model" else made[f"convert {origin}"]
        made[f"convert {target}"] = engine = store.build(
            hollow(ConvertStage, make_engine_facts(target).to_document()),
            ConvertConfig(target=target, verify=VerifyRule()),
            {"source": source, **base},
        )
        made[f"evaluate {target}"] = store.build(
            hollow(EvaluateStage), EvaluateRule(), {"engine": engine, "images": images}
        )
        bundle = BundleConfig(target="linux-arm64")
        made[f"bundle {target}"] = store.build(hollow(BundleStage), bundle, {"engine": engine})
    calibrated = {"images": images, "calibration": calibration}
    for name in ("tflite", "onnx"):
        source = made[f"convert {name}:float32"]
        made[f"ranges {name}"] = ranges = store.build(
            hollow(RangesStage), RangesConfig(), {"source": source, **calibrated}
        )
        made[f"sensitivity {name}"] = store.build(
            hollow(SensitivityStage),
            SensitivityConfig(
                backend=name, quantize=QuantizeRule(), rule=SensitivityRule(), gate=("default",)
            ),
            {"source": source, "ranges": ranges, **calibrated},
        )
        made[f"bench {name}"] = store.build(
            hollow(BenchStage),
            BenchConfig(rule=BenchRule(), statistics=EvaluateRule()),
            {"images": images, StepId("engine", name): source},
        )
    return made


def steps(verbs: str, *targets: str) -> set[str]:
    return {f"{verb} {target}" for verb in verbs.split() for target in targets}


KERAS = steps("convert evaluate bundle", "keras:float32")
TFLITE = steps("convert", "tflite:float32", "tflite:int8") | {"sensitivity tflite"}
ONNX = steps("convert", "onnx:float32", "onnx:int8") | {"sensitivity onnx"}
TENSORRT = steps("convert", "tensorrt:int8")
RUNS_TFLITE = steps("evaluate bundle", "tflite:float32", "tflite:int8") | steps(
    "ranges bench", "tflite"
)
RUNS_ONNX = steps("evaluate bundle", "onnx:float32", "onnx:int8") | steps("ranges bench", "onnx")
RUNS_TENSORRT = steps("evaluate bundle", "tensorrt:int8")
PRUNED = steps("prune", "keep_macs", "keep_latency")
TIMED = steps("prune", "keep_latency")

EMULATED = {
    "ai-edge-litert": TFLITE | RUNS_TFLITE | TIMED,
    "ai-edge-quantizer": TFLITE | TIMED,
    "flatbuffers": TFLITE | TIMED,
    "tensorflow": KERAS | TFLITE | PRUNED,
    "tf_keras": KERAS | TFLITE | PRUNED,
    "onnx": ONNX | RUNS_ONNX | TENSORRT | RUNS_TENSORRT,
    "onnxruntime": ONNX | RUNS_ONNX | TENSORRT | RUNS_TENSORRT,
    "tf2onnx": ONNX,
    "tensorrt": TENSORRT,
    "tensorrt-rtx": TENSORRT,
    "pycuda": set[str](),
    "matplotlib": set[str](),
}
"""Tool -> what is rebuilt where no GPU runs TensorRT."""
ON_A_GPU = {
    "tensorrt": TENSORRT | RUNS_TENSORRT,
    "onnxruntime": ONNX | RUNS_ONNX | TENSORRT,
    "onnx": ONNX | RUNS_ONNX | TENSORRT,
}
QAT = {"tensorflow": steps("convert", "onnx:int8", "tensorrt:int8")}
"""What is verified against fake-quantized outputs, beside `EMULATED`."""


@pytest.fixture
def upgrade(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that gives one distribution another version."""
    real = metadata.version

    def change(tool: str) -> None:
        monkeypatch.setattr(
            "importlib.metadata.version", lambda name: "999" if name == tool else real(name)
        )

    return change


def find_rebuilt(
    store: Store, upgrade: Callable[[str], None], tool: str, model_file: str = "made.txt"
) -> set[str]:
    before = build_run(store, model_file)
    assert build_run(store, model_file) == before
    upgrade(tool)
    assert version_of(tool) == "999"
    after = build_run(store, model_file)
    return {name for name, artefact in after.items() if artefact.key != before[name].key}


@pytest.mark.parametrize("tool", sorted(EMULATED))
def test_an_upgrade_rebuilds_what_the_tool_made(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    upgrade: Callable[[str], None],
    tool: str,
) -> None:
    monkeypatch.setattr("lesiontk.backends.tensorrt.backend.explain_no_gpu", lambda: "no GPU")
    assert find_rebuilt(store, upgrade, tool) == EMULATED[tool]


@pytest.mark.parametrize("tool", sorted(ON_A_GPU))
def test_on_a_gpu_the_outputs_depend_on_tensorrt(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    upgrade: Callable[[str], None],
    tool: str,
) -> None:
    monkeypatch.setattr("lesiontk.backends.tensorrt.backend.explain_no_gpu", lambda: "")
    assert find_rebuilt(store, upgrade, tool) == ON_A_GPU[tool]


def test_a_gpu_that_appears_has_outputs_evaluated_anew(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "no GPU"
    monkeypatch.setattr("lesiontk.backends.tensorrt.backend.explain_no_gpu", lambda: reason)
    before = build_run(store)
    reason = ""
    after = build_run(store)
    changed = {name for name in after if after[name].key != before[name].key}
    assert changed == RUNS_TENSORRT


def test_fake_quantized_outputs_depend_on_keras(
    store: Store, monkeypatch: pytest.MonkeyPatch, upgrade: Callable[[str], None]
) -> None:
    monkeypatch.setattr("lesiontk.backends.tensorrt.backend.explain_no_gpu", lambda: "no GPU")
    rebuilt = find_rebuilt(store, upgrade, "tensorflow", LEARNED)
    assert rebuilt == EMULATED["tensorflow"] | QAT["tensorflow"]


def test_every_tool_of_a_back_end_is_in_the_key_of_its_engines(store: Store) -> None:
    made = build_run(store)
    for target in TARGETS:
        tools = BACKENDS.get(target.partition(":")[0]).info.tools
        assert set(tools) <= made[f"convert {target}"].manifest.tools.keys()


def test_every_declared_tool_is_a_distribution_by_its_name() -> None:
    """A misspelled one would be absent before and after any upgrade."""
    stages = [
        value
        for module in pkgutil.iter_modules(lesiontk.stages.__path__)
        for value in vars(importlib.import_module(f"lesiontk.stages.{module.name}")).values()
        if isinstance(value, type) and issubclass(value, Stage) and hasattr(value, "info")
    ]
    assert len({stage.info.name for stage in stages}) > 20
    declared = {tool for stage in stages for tool in stage.info.tools}
    for _, backend in BACKENDS.items():
        declared |= {*backend.info.tools, *backend.info.runtime}
        assert set(backend.info.runtime) <= set(backend.info.tools)
    assert {tool for tool in declared if version_of(tool) == "absent"} == set()


# ------------------------------------------------------------------------------ any chain at all


class LinkConfig(StageConfig):
    tools: frozenset[str]
    affected: frozenset[str]


class LinkStage(Stage):
    """Writes its parents' texts and the versions of `affected`, a part of its `tools`."""

    info: ClassVar[StageInfo] = StageInfo("link", 1, {"parent": "link"}, "link", LinkConfig)

    def __init__(self, number: int, runs: list[int]) -> None:
        self.number, self.runs = number, runs

    def external_inputs(self, config: LinkConfig) -> dict[str, str]:
        return {"number": str(self.number)}

    def list_tools(self, config: LinkConfig, parents: Mapping[str, Artefact]) -> tuple[str, ...]:
        return tuple(config.tools)

    def run(
        self, parents: Mapping[str, Artefact], config: LinkConfig, context: Context
    ) -> StageOutput:
        self.runs.append(self.number)
        texts = [parents[role].file("text").read_text() for role in sorted(parents)]
        texts += [f"{tool} {version_of(tool)}" for tool in sorted(config.affected)]
        (context.directory / "text").write_text(f"{self.number}({', '.join(texts)})")
        return StageOutput({})


TOOLS = ("numpy", "onnx", "tensorflow", "not-installed")


@st.composite
def links(draw: st.DrawFn) -> list[tuple[set[int], set[str], set[str]]]:
    """Parents of lower number, tools, and those of the tools that change what is written."""
    chain = []
    for number in range(draw(st.integers(1, 6))):
        tools = draw(st.sets(st.sampled_from(TOOLS)))
        affected = draw(st.sets(st.sampled_from(sorted(tools)))) if tools else set()
        parents = draw(st.sets(st.integers(0, number - 1), max_size=2)) if number else set()
        chain.append((parents, tools, affected))
    return chain


def build_links(store: Store, chain: list[tuple[set[int], set[str], set[str]]]) -> list[int]:
    """Return the numbers of the links whose stage ran."""
    runs: list[int] = []
    made: list[Artefact] = []
    for number, (parents, tools, affected) in enumerate(chain):
        config = LinkConfig(tools=frozenset(tools), affected=frozenset(affected))
        given_parents = {StepId("parent", str(parent)): made[parent] for parent in parents}
        made.append(store.build(LinkStage(number, runs), config, given_parents))
    return runs


@settings(max_examples=40)
@given(links(), st.sampled_from(TOOLS))
def test_an_upgrade_rebuilds_its_users_and_what_reads_other_content(
    chain: list[tuple[set[int], set[str], set[str]]], tool: str
) -> None:
    real = metadata.version
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        store = Store(Path(folder), threads=1)
        assert build_links(store, chain) == list(range(len(chain)))
        assert build_links(store, chain) == []
        patch.setattr(
            "importlib.metadata.version", lambda name: "999" if name == tool else real(name)
        )
        expected: list[int] = []
        other_content: set[int] = set()
        for number, (parents, tools, affected) in enumerate(chain):
            reads_other = bool(parents & other_content)
            if tool in tools or reads_other:
                expected.append(number)
            if tool in affected or reads_other:
                other_content.add(number)
        assert build_links(store, chain) == expected
