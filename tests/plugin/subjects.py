"""What the conformance suites are told of the example plugin's members."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conformance.subjects import DESCRIBE, WRITERS, Labels, describe_keras, write_image

MARK = b"BOXED\n"


def write_labels_json(folder: Path, images: Labels) -> None:
    labels = {}
    for number, (image_id, diagnosis) in enumerate(images.items()):
        write_image(folder / f"{image_id}.png", number)
        labels[f"{image_id}.png"] = {"diagnosis": diagnosis, "lesion": f"L{number // 2}"}
    (folder / "labels.json").write_text(json.dumps(labels))


def describe_boxed(source: Path, out: Path, text: str | None) -> None:
    inner, described = out.with_suffix(".inner"), out.with_suffix(".keras")
    inner.write_bytes(source.read_bytes().removeprefix(MARK))
    describe_keras(inner, described, text)
    out.write_bytes(MARK + described.read_bytes())


WRITERS["labels_json"] = write_labels_json
DESCRIBE["boxed"] = describe_boxed
