"""An image encoder as teacher: its features of the training images, and a linear head on them."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from lesiontk.errors import UsageError
from lesiontk.recipe import Recipe, explain_invalid
from lesiontk.records import Artefact
from lesiontk.stages.encode import EncodeConfig, EncodeStage
from lesiontk.stages.encoder_head import EncoderHeadConfig, EncoderHeadStage
from lesiontk.store import Store
from lesiontk.workflow.plan import DATASET, SPLIT
from lesiontk.workflow.runner import build_step
from lesiontk.workflow.train import plan_run


def fit_encoder(
    store: Store,
    recipe: Recipe,
    file: Path,
    *,
    pretraining: str = "unknown",
    has_not_seen_test: bool = False,
    **keys: object,
) -> Artefact:
    """Return a classifier of the recipe's task on the features of a frozen ONNX encoder.

    It is trained on the training images of the recipe's split, and its regularization is chosen on
    the validation images. `keys` are those of `EncodeConfig`. Raises `DataError` or `UsageError`
    for a file that is no encoder of images.
    """
    try:
        config = EncodeConfig.model_validate(
            {"file": str(file.resolve()), "path": recipe.data.path, **keys}
        )
        head = EncoderHeadConfig(pretraining=pretraining, has_not_seen_test=has_not_seen_test)
    except ValidationError as error:
        raise UsageError(explain_invalid(error, EncodeConfig)) from error
    EncodeStage().check(config)
    plan = plan_run(store, recipe, gated=False)
    done: dict[str, Artefact] = {}
    split = build_step(plan, SPLIT, store, done)
    data = {"dataset": done[DATASET]} if DATASET in done else {}
    document = recipe.model_dump(mode="json")
    features = store.build(EncodeStage(), config, {"split": split, **data}, recipe=document)
    return store.build(
        EncoderHeadStage(), head, {"features": features, "split": split}, recipe=document
    )
