"""Stage: what a Jetson needs to build an engine of its own, run it and compare its answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from lesiontk.backends import open_engine
from lesiontk.backends.convert_stage import engine_file
from lesiontk.backends.tensorrt import on_device
from lesiontk.backends.tensorrt.targets import JetsonTarget, find_target, write_trtexec
from lesiontk.data.images import open_images
from lesiontk.errors import UsageError
from lesiontk.recipe import VerifyRule
from lesiontk.records import Artefact
from lesiontk.stage import Context, Stage, StageConfig, StageInfo, StageOutput

SCRIPT, GOLDEN, KIT, README = "on_device.py", "golden.npz", "kit.json", "README.md"


class KitConfig(StageConfig):
    """The target, and how many validation images go with it as golden inputs."""

    target: str
    golden_images: int = Field(16, ge=1)


class KitStage(Stage):
    """Produces a folder to copy to the device: graph, script, golden answers, instructions."""

    info: ClassVar[StageInfo] = StageInfo(
        name="kit",
        version=1,
        accepts={"engine": "engine", "images": "images"},
        produces="kit",
        config=KitConfig,
        tools=("numpy", "onnx", "onnxruntime"),
    )

    def check(self, config: KitConfig) -> None:
        """Raise `UsageError` for an unknown target."""
        find_target(config.target)

    def run(
        self, parents: Mapping[str, Artefact], config: KitConfig, context: Context
    ) -> StageOutput:
        from lesiontk.backends.tensorrt.check import require_model

        target = find_target(config.target)
        facts = parents["engine"].facts
        if facts["backend"] != "tensorrt":
            raise UsageError(
                f"a kit for {target.name} is made of a TensorRT engine, and {facts['target']} is "
                "none; expected --to tensorrt:int8, tensorrt:float16 or tensorrt:float32."
            )
        source = engine_file(parents["engine"])
        report = require_model(source, target.tensorrt)
        images = open_images(parents["images"])
        rows = images.draw_stratified("validation", config.golden_images, seed=0)
        with open_engine(source, threads=context.threads) as engine:
            answers = engine.predict(images.pixels[rows])
            spec = engine.spec
            execution = [part.to_json() for part in engine.describe_execution()]
        shutil.copyfile(source, context.directory / source.name)
        np.savez(context.directory / GOLDEN, images=images.pixels[rows], probabilities=answers)
        script = resources.files("lesiontk.backends.tensorrt").joinpath(SCRIPT)
        (context.directory / SCRIPT).write_text(script.read_text(encoding="utf-8"))
        rule = VerifyRule(**parents["engine"].manifest["config"]["verify"])
        reduced = spec.precision == "int8"
        kit = {
            "model": source.name,
            "precision": spec.precision,
            "golden": GOLDEN,
            "labels": list(spec.labels),
            "image_size": spec.preprocessing.image_size,
            "target": target.name,
            "tensorrt_versions": list(target.tensorrt),
            "batches": [1, 1, 1],
            "workspace_bytes": on_device.WORKSPACE_BYTES,
            "min_agreement": rule.min_agreement_int8 if reduced else rule.min_agreement_float,
            "max_mean_drift": rule.max_mean_drift_int8 if reduced else rule.max_mean_drift_float,
        }
        write_json(context.directory / KIT, kit)
        lines = {
            version: write_trtexec(version, spec.precision, source.name, spec.input_shape)
            for version in target.tensorrt
        }
        text = describe_kit(target, spec.precision, len(rows), lines, spec.notice)
        (context.directory / README).write_text(text)
        return StageOutput(
            {
                "target": target.name,
                "engine": facts["target"],
                "file": source.name,
                "script": SCRIPT,
                "golden_images": len(rows),
                "golden_answers_from": execution,
                "check": report.to_json(),
                "trtexec": lines,
            }
        )


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document with a line for each key."""
    path.write_text(json.dumps(document, indent=1) + "\n")


def describe_kit(
    target: JetsonTarget, precision: str, golden: int, trtexec: Mapping[str, str], notice: str
) -> str:
    """Return the instructions that lie in the folder."""
    lines = "\n".join(f"# TensorRT {version}\n{line}" for version, line in trtexec.items())
    return f"""# {precision} engine for {target.device}, JetPack {target.jetpack}

{notice} An engine belongs to the TensorRT and the GPU that built it, so it is built on the device.
Checked for TensorRT {", ".join(target.tensorrt)}; not run on a {target.device}.

On the device, in this folder:

    sudo apt install python3-libnvinfer   # part of JetPack
    pip3 install pycuda                   # or cuda-python
    python3 {SCRIPT}

It needs Python {target.python} or later, numpy and these two. It builds `engine.plan` (minutes the
first time; `timing.cache` makes the next faster), answers {golden} golden images, compares the
answers with those in `{GOLDEN}`, times single images with CUDA events, and prints one JSON
document. Exit code 0: the answers are as expected; 1: they are not; 2: TensorRT refuses something;
3: a package, driver or GPU is missing. `--rebuild` builds anew, `--rounds 0` times nothing.

NVIDIA's own tool builds and times the same graph:

```
{lines}
```

Input `image`: uint8 [N, height, width, 3] RGB, normalised inside the graph. Output
`probabilities`: float32 [N, classes], in the order of `labels` in `{KIT}`. Fix the clocks before
timing: `sudo nvpmodel -m 0 && sudo jetson_clocks`.
"""
