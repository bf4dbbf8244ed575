"""What the suites are told of what they examine: sample data of sources, descriptions of engines.

A distribution adds its own by a module that pytest loads: ``pytest -p MODULE tests/conformance``.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
from PIL import Image

Labels = Mapping[str, str]
"""Image id -> diagnosis."""


def write_image(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (24, 16), (shade, 80, 60)).save(path)


def write_ham10000(folder: Path, images: Labels, dx_type: str = "histo") -> None:
    rows = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    for number, (image_id, dx) in enumerate(images.items()):
        rows.append(f"HAM_{number // 2},{image_id},{dx},{dx_type},45.0,male,back")
        write_image(folder / f"HAM10000_images_part_{number % 2 + 1}" / f"{image_id}.jpg", number)
    (folder / "HAM10000_metadata.csv").write_text("\n".join(rows))


def write_synthetic(folder: Path, images: Labels) -> None:
    write_ham10000(folder, images, dx_type="synthetic")


def write_isic(folder: Path, images: Labels) -> None:
    rows = ["image,MEL,NV,BCC,AKIEC,BKL,DF,VASC"]
    order = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")
    for number, (image_id, dx) in enumerate(images.items()):
        rows.append(",".join([image_id, *(f"{float(name == dx)}" for name in order)]))
        write_image(folder / "images" / f"{image_id}.jpg", number)
    (folder / "GroundTruth.csv").write_text("\n".join(rows))


def write_folder(folder: Path, images: Labels) -> None:
    for number, (image_id, dx) in enumerate(images.items()):
        write_image(folder / dx / f"{image_id}.png", number)


def write_csv(folder: Path, images: Labels) -> None:
    rows = ["filename;label"]
    for number, (image_id, dx) in enumerate(images.items()):
        rows.append(f"pictures/{image_id}.png;{dx}")
        write_image(folder / "pictures" / f"{image_id}.png", number)
    (folder / "my_table.csv").write_text("\n".join(rows))


WRITERS: dict[str, Callable[[Path, Labels], None]] = {
    "ham10000": write_ham10000,
    "isic": write_isic,
    "folder": write_folder,
    "csv": write_csv,
    "synthetic": write_synthetic,
}
"""Source -> what writes a tiny data set in its layout."""


def describe_keras(source: Path, out: Path, text: str | None) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            if name != "lesiontk.json":
                new.writestr(name, old.read(name))
        if text is not None:
            new.writestr("lesiontk.json", text)


def describe_tflite(source: Path, out: Path, text: str | None) -> None:
    from lesiontk.backends.tflite.graph import dump_model, embed_spec, read_model

    if text is not None:
        out.write_bytes(embed_spec(source.read_bytes(), text))
        return
    model = read_model(source.read_bytes())
    model.metadata = [entry for entry in model.metadata if entry.name.decode() != "lesiontk"]
    out.write_bytes(dump_model(model))


def describe_onnx(source: Path, out: Path, text: str | None) -> None:
    model = onnx.load(source)
    del model.metadata_props[:]
    if text is not None:
        onnx.helper.set_model_props(model, {"lesiontk": text})
    onnx.save(model, out)


DESCRIBE: dict[str, Callable[[Path, Path, str | None], None]] = {
    "keras": describe_keras,
    "tflite": describe_tflite,
    "onnx": describe_onnx,
    "openvino": describe_onnx,
    "tensorrt": describe_onnx,
}
"""Back end -> what writes a copy of an engine file with another description, or with none."""
