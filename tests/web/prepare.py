"""Write what the tests of the web app compare with: a bundle, pictures, the desktop's answers.

The pictures are 100 of HAM10000's test split where ``../shared`` has them, else synthetic ones.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lesiontk.backends import open_engine
from lesiontk.backends.tflite.backend import TFLiteBackend
from lesiontk.data.decode import decode_image
from lesiontk.data.pictures import load_picture
from lesiontk.data.preprocess import preprocess_image
from lesiontk.data.synthetic.dataset import write_synthetic_dataset
from lesiontk.deploy.runner.contract import OperatingPoint
from lesiontk.deploy.runner.decision import decide
from lesiontk.evaluate.fit_input_checks import (
    fit_distance,
    fit_quality,
    measure_all,
    score_signals,
)
from lesiontk.stages.bundle import open_target, write_bundle_of_file
from lesiontk.stages.input_checks import write_checks

ROOT = Path(__file__).parents[2]
ENGINE = ROOT / "benchmarks" / "engines" / "efficientnet_lite0_7class" / "tflite_int8.tflite"
HAM10000 = ROOT.parent / "shared" / "data" / "ham10000"
SPLIT = ROOT / "recipes" / "splits" / "7c9837e2eefb.csv"
N = 100


def prepare(folder: Path) -> None:
    """Fill a new folder."""
    board = folder / "board"
    plain = folder / "plain" / ENGINE.name  # without the published input checks beside it
    plain.parent.mkdir()
    shutil.copyfile(ENGINE, plain)
    write_bundle_of_file(folder / "bundle", plain, open_target("web", None), threshold=0.5)
    photographs = list_photographs(folder)
    checked = fit_checks(folder / "engine", photographs)
    write_bundle_of_file(folder / "checked", checked, open_target("web", None), threshold=0.5)
    (folder / "statuses.json").write_text(json.dumps(judge(folder / "checked", photographs)))
    write_bundle_of_file(board, plain, open_target("linux-x86-64", None), threshold=0.5)
    answers = list(answer(photographs, folder / "images"))
    (folder / "expected.json").write_text(json.dumps(answers, indent=1))
    (folder / "decisions.json").write_text(json.dumps(list(make_decisions()), indent=1))
    write_refused(folder / "refused", folder / "images" / answers[0]["jpeg"])


def list_photographs(folder: Path) -> list[Path]:
    """Return `N` JPEG files, in the same order everywhere."""
    with SPLIT.open(newline="") as stream:
        rows = [row["image_id"] for row in csv.DictReader(stream) if row["subset"] == "test"]
    found = {path.stem: path for path in HAM10000.glob("HAM10000_images_part_*/*.jpg")}
    if all(name in found for name in rows):
        return [found[name] for name in rows[:: len(rows) // N][:N]]
    write_synthetic_dataset(folder / "synthetic", lesions=N, image_size=300, seed=11)
    return sorted((folder / "synthetic").rglob("*.jpg"))[:N]


def fit_checks(folder: Path, photographs: list[Path]) -> Path:
    """Copy the engine and put input checks beside it, fitted so that they refuse about half."""
    folder.mkdir()
    engine_path = folder / ENGINE.name
    shutil.copyfile(ENGINE, engine_path)
    signals_path = folder / "signals.tflite"
    content, _ = TFLiteBackend().split_record(ENGINE.read_bytes())
    signals_path.write_bytes(TFLiteBackend().add_signal_outputs(content))
    with open_engine(signals_path) as engine:
        images = np.stack([load_picture(path, engine.spec.preprocessing) for path in photographs])
        signals = engine.predict_signals(images)
    targets = np.arange(N) % 4
    domain = fit_distance(signals.features, targets, 8, unit_length=True)
    threshold = float(np.median(score_signals(domain, signals)))  # between two pictures' scores
    bounds = fit_quality(measure_all(images), images.shape[1], 0.2)
    (folder / "input_checks").mkdir()
    write_checks(folder / "input_checks", content, bounds, domain, threshold)
    return engine_path


def judge(bundle: Path, photographs: list[Path]) -> list[dict[str, Any]]:
    """Return what the bundle's own runner finds of each picture's input."""
    words = [sys.executable, str(bundle / "run.py"), "predict", "--json", *map(str, photographs)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return [entry["input"] for entry in json.loads(done.stdout)["predictions"]]


def answer(photographs: list[Path], images: Path) -> Iterator[dict[str, Any]]:
    """Copy the photographs, also as their pixels without loss, and yield the desktop's answers."""
    images.mkdir()
    with open_engine(ENGINE) as engine:
        spec = engine.spec
        for photograph in photographs:
            content = photograph.read_bytes()
            pixels = decode_image(content, name=photograph.name)
            (images / photograph.name).write_bytes(content)
            Image.fromarray(pixels).save(images / f"{photograph.stem}.png", compress_level=1)
            prepared = preprocess_image(pixels, spec.preprocessing)
            values = engine.predict(prepared[np.newaxis])[0]
            yield {
                "jpeg": photograph.name,
                "png": f"{photograph.stem}.png",
                **decide(values, list(spec.labels), None, None),
            }


def make_decisions() -> Iterator[dict[str, Any]]:
    """Yield probabilities of int8 and float engines with the toolkit's decision."""
    rng = np.random.default_rng(3)
    labels = ["a", "b", "c"]
    for number in range(200):
        steps = rng.multinomial(256, rng.dirichlet([0.5, 1, 1]))
        values = (steps / 256 if number % 2 else rng.dirichlet([0.5, 1, 1])).astype(np.float32)
        point = OperatingPoint("given", float(values[0] + values[2]), ("a", "c"))
        used = point if number % 5 else None
        temperature = None if number % 3 == 0 else 0.5 + rng.random()
        yield {
            "values": values.tolist(),
            "labels": labels,
            "point": used and used.to_document(),
            "temperature": temperature,
            "decision": decide(values, labels, used, temperature),
        }


def write_refused(folder: Path, photograph: Path) -> None:
    """Write files that must be refused, each named by the reason."""
    folder.mkdir()
    content = photograph.read_bytes()
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "truncated.jpg").write_bytes(content[: len(content) // 2])
    (folder / "not_an_image.jpg").write_text("A text that someone named .jpg.\n" * 20)
    grey = Image.new("L", (10_000, 10_000), 128)
    grey.save(folder / "too_large.png")  # 100 megapixels in 100 kB
    Image.new("RGB", (7, 100)).save(folder / "too_small.png")
    Image.new("CMYK", (64, 64)).save(folder / "unsupported.jpg")
    Image.new("RGB", (64, 64)).save(folder / "good.png")
    png = bytearray((folder / "good.png").read_bytes())
    (folder / "good.png").unlink()
    png[-20] ^= 1  # inside IDAT
    (folder / "corrupt.png").write_bytes(png)
    header = png[:33]
    broken = b"no zlib stream" * 4
    chunk = b"IDAT" + broken
    body = len(broken).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    end = bytes(4) + b"IEND" + zlib.crc32(b"IEND").to_bytes(4, "big")
    (folder / "corrupt_pixels.png").write_bytes(header + body + end)
