"""The stages, one file each: the only modules that read and write artefacts.

They are registered here; those that compress a model, in `lesiontk.technique`.
"""

from __future__ import annotations

from lesiontk.registry import Registry
from lesiontk.stage import Stage
from lesiontk.technique import TECHNIQUES

STAGES: Registry[type[Stage]] = Registry("stage", (TECHNIQUES,))
STAGES.register("synthesize", "lesiontk.stages.synthesize:SynthesizeStage")
STAGES.register("inspect", "lesiontk.stages.inspect_images:InspectStage")
STAGES.register("split", "lesiontk.stages.split:SplitStage")
STAGES.register("prepare", "lesiontk.stages.prepare:PrepareStage")
STAGES.register("train", "lesiontk.stages.train:TrainStage")
STAGES.register("import", "lesiontk.stages.import_model:ImportStage")
STAGES.register(
    "teacher_predictions", "lesiontk.stages.teacher_predictions:TeacherPredictionsStage"
)
STAGES.register("parent_predictions", "lesiontk.stages.parent_predictions:ParentPredictionsStage")
STAGES.register("encode", "lesiontk.stages.encode:EncodeStage")
STAGES.register("encoder_head", "lesiontk.stages.encoder_head:EncoderHeadStage")
STAGES.register("calibrate", "lesiontk.stages.calibrate:CalibrateStage")
STAGES.register("ranges", "lesiontk.stages.ranges:RangesStage")
STAGES.register("sensitivity", "lesiontk.stages.sensitivity:SensitivityStage")
STAGES.register("convert", "lesiontk.stages.convert:ConvertStage")
STAGES.register("stability", "lesiontk.stages.stability:StabilityStage")
STAGES.register("evaluate", "lesiontk.stages.evaluate:EvaluateStage")
STAGES.register("validate", "lesiontk.stages.validate:ValidateStage")
STAGES.register("time", "lesiontk.stages.time_engine:TimeStage")
STAGES.register("input_checks", "lesiontk.stages.input_checks:InputChecksStage")
STAGES.register("robustness", "lesiontk.stages.robustness:RobustnessStage")
STAGES.register("explain", "lesiontk.stages.explain:ExplainStage")
STAGES.register("flips", "lesiontk.stages.flips:FlipsStage")
STAGES.register("bench", "lesiontk.stages.bench:BenchStage")
STAGES.register("compare_seeds", "lesiontk.stages.compare_seeds:CompareSeedsStage")
STAGES.register("cross_validate", "lesiontk.stages.cross_validate:CrossValidateStage")
STAGES.register("report", "lesiontk.stages.report:ReportStage")
STAGES.register("bundle", "lesiontk.stages.bundle:BundleStage")
