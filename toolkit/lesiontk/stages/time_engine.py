"""Stage: latency, size and memory of one engine alone, and what disturbed the measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from lesiontk.backends.engine_facts import EngineFacts
from lesiontk.backends.execution import Execution, name_emulator
from lesiontk.backends.reference_outputs import engine_file
from lesiontk.bench.measure import LatencySamples, measure_engines
from lesiontk.bench.timing import Latency
from lesiontk.data.images import open_images
from lesiontk.document import Record, write_record
from lesiontk.files.hashing import hash_document
from lesiontk.recipe import BenchRule
from lesiontk.records import Artefact
from lesiontk.stage import MEASURING, Context, Stage, StageConfig, StageInfo, StageOutput
from lesiontk.stages.bench import SAMPLES, TIMED_IMAGES
from lesiontk.stages.engine_tools import tools_of_runtime
from lesiontk.system.machine import describe_machine


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTiming(Record):
    """The measurements of one engine, single stream, without others in turns.

    `others_load` and `noise` are as in `lesiontk.bench.timing.ScenarioTiming`.
    """

    target: str
    threads: int
    latency_ms: Latency
    size_bytes: int
    deflated_bytes: int
    peak_memory_bytes: int
    execution: tuple[Execution, ...] = ()
    others_load: float | None = None
    noise: tuple[str, ...] = ()

    @property
    def emulated_by(self) -> str | None:
        """The runtime that emulated the engine's own; its latency is that of another program."""
        return name_emulator(self.execution)


class TimeConfig(StageConfig):
    """The rule of timing; of its scenarios only the single stream is measured."""

    rule: BenchRule


class TimeStage(Stage):
    """Produces the raw latencies. Whoever builds it lets no other engine be timed meanwhile."""

    info: ClassVar[StageInfo] = StageInfo(
        name="time",
        version=1,
        accepts={"engine": "engine", "images": "images"},
        produces="timing",
        config=TimeConfig,
        schema_version=EngineTiming.SCHEMA,
        tools=("numpy",),
        needs=MEASURING,
    )

    def external_inputs(self, config: TimeConfig) -> dict[str, str]:
        """The machine: a workspace on another machine is measured again."""
        return {"machine": hash_document(describe_machine().to_document())}

    def list_tools(self, config: TimeConfig, parents: Mapping[str, Artefact]) -> tuple[str, ...]:
        return (*self.info.tools, *tools_of_runtime([parents["engine"]]))

    def run(
        self, parents: Mapping[str, Artefact], config: TimeConfig, context: Context
    ) -> StageOutput:
        images = open_images(parents["images"])
        rows = images.draw_stratified("validation", TIMED_IMAGES, seed=0)
        target = parents["engine"].read_facts(EngineFacts).target
        rule = config.rule.model_copy(update={"scenarios": ("single_stream",), "per_layer": False})
        files = {target: engine_file(parents["engine"])}
        measured = measure_engines(files, images.pixels[rows], rule, context.progress)[target]
        samples = LatencySamples({target: measured.timings})
        write_record(context.directory / SAMPLES, samples)
        timing = EngineTiming(
            target=target,
            threads=rule.threads,
            latency_ms=measured.latency,
            size_bytes=measured.size_bytes,
            deflated_bytes=measured.deflated_bytes,
            peak_memory_bytes=measured.load.peak_bytes,
            execution=measured.execution,
            others_load=measured.single_stream.attempt.others_load,
            noise=measured.single_stream.list_noise(),
        )
        return StageOutput({}, auxiliary=(SAMPLES,), measured=timing.to_document())
