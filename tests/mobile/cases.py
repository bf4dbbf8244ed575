"""Write what the apps' libraries must return: golden vectors, and the toolkit's own answers.

The engines are the published ones, on the golden images of their bundles.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesiontk.backends import open_engine
from lesiontk.data.crop import crop_and_resize
from lesiontk.deploy import find_bundle_target
from lesiontk.deploy.mobile.target import APPS
from lesiontk.deploy.runner.contract import OperatingPoint
from lesiontk.deploy.runner.decision import decide
from lesiontk.evaluate.input_checks import check_input, load_checks
from lesiontk.stages.bundle import write_bundle_of_file
from tests.golden.make_preprocess import GOLDEN, make_input

ENGINES = Path(__file__).parents[2] / "benchmarks" / "engines"
RECIPES = ("cnn_7class", "efficientnet_lite0_binary")
Case = dict[str, Any]
Expected = dict[str, list[Any]]


class Writer:
    """Writes the files of cases into `folder`; `cases` and `expected` grow alike."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cases, self.expected = folder, dict[str, list[Case]](), Expected()

    def add(self, kind: str, case: Case, expected: object) -> None:
        self.cases.setdefault(kind, []).append(case)
        self.expected.setdefault(kind, []).append(expected)

    def write(self, content: bytes) -> str:
        name = f"{hashlib.sha256(content).hexdigest()[:16]}.bin"
        (self.folder / name).write_bytes(content)
        return name

    def write_pixels(self, image: NDArray[np.uint8], padding: int = 0) -> Case:
        """Write an image as RGBA whose rows end in `padding` bytes, as a camera's may."""
        height, width = image.shape[:2]
        rows = np.full((height, 4 * width + padding), 77, np.uint8)
        rows[:, : 4 * width] = rgba(image).reshape(height, -1)
        content = rows.tobytes()[: rows.size - padding]  # the last row may end before
        place = {"width": width, "height": height, "row_bytes": rows.shape[1]}
        return {"file": self.write(content), **place}


def rgba(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])


def write_cases(folder: Path) -> Expected:
    """Fill a new folder; return kind -> the expected answers, in the order of the cases."""
    folder.mkdir(parents=True)
    writer = Writer(folder)
    add_golden_vectors(writer)
    add_random_sizes(writer)
    bundles = [make_assets(folder, recipe) for recipe in RECIPES]
    add_decisions(writer, json.loads((bundles[0] / "bundle.json").read_text()))
    for bundle in bundles:
        add_bundle(writer, bundle)
    add_scores(writer)
    (folder / "cases.json").write_text(json.dumps(writer.cases))
    return writer.expected


def add_golden_vectors(writer: Writer) -> None:
    for case in json.loads(GOLDEN.read_text())["cases"]:
        pixels = writer.write_pixels(make_input(case["height"], case["width"]))
        wanted = {name: case[name] for name in ("image_size", "crop_mode")}
        writer.add("resize", {**pixels, **wanted}, case["output_sha256"])


def add_random_sizes(writer: Writer) -> None:
    rng = np.random.default_rng(5)
    for number in range(40):
        height, width, size = (int(n) for n in rng.integers(3, (400, 400, 230)))
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        mode = ("crop", "stretch")[number % 2]
        digest = hashlib.sha256(crop_and_resize(image, size, mode).tobytes()).hexdigest()
        pixels = writer.write_pixels(image, padding=int(rng.integers(0, 70)))
        writer.add("resize", {**pixels, "image_size": size, "crop_mode": mode}, digest)


def add_decisions(writer: Writer, contract: Case) -> None:
    """Add probabilities of int8 and float engines, some with the score on the threshold."""
    rng = np.random.default_rng(3)
    labels = ["a", "b", "c"]
    for number in range(200):
        steps = rng.multinomial(256, rng.dirichlet([0.5, 1, 1]))
        values = (steps / 256 if number % 2 else rng.dirichlet([0.5, 1, 1])).astype("<f4")
        score = float(np.float64(values[0]) + np.float64(values[2]))
        threshold = (score, np.nextafter(score, 2), rng.random())[number % 3]
        point = {"rule": "given", "threshold": float(threshold), "positive": ["a", "c"]}
        document = {**contract, "labels": labels, "operating_point": point if number % 5 else None}
        used = OperatingPoint(**point) if number % 5 else None
        decision = decide(values, labels, used, None)
        case = {"contract": document, "values": writer.write(values.tobytes())}
        writer.add("decisions", case, decision)


def make_assets(folder: Path, recipe: str) -> Path:
    """Return the assets of a bundle of a published engine, the same for both apps.

    `signals.f32` has the engine's outputs for each golden image, and pictures are decoded.
    """
    engine = ENGINES / recipe / "tflite_int8.tflite"
    assets = []
    for name, app in APPS.items():
        bundle = folder / recipe / name
        write_bundle_of_file(bundle, engine, find_bundle_target(name), threshold=0.4)
        assets.append(bundle / app.project / app.assets)
    with np.load(folder / recipe / "android" / "golden.npz") as golden:
        images = golden["images"]
    for place in assets:
        with open_engine(place / engine.name) as opened:
            found = opened.predict_signals(images)
        outputs = np.hstack([found.probabilities, found.features, found.logits])
        (place / "signals.f32").write_bytes(outputs.astype("<f4").tobytes())
        for picture in (place / "golden").iterdir():
            image = np.asarray(Image.open(picture))
            header = np.array(image.shape[1::-1], "<u4").tobytes()
            picture.write_bytes(header + rgba(image).tobytes())
    return assets[0]


def read_signals(assets: Path) -> tuple[Case, NDArray[np.float32], int]:
    """Return the contract, the outputs float32 [N, P + F + P], and the number P of classes."""
    contract = json.loads((assets / "bundle.json").read_text())
    n = np.fromfile(assets / contract["mobile"]["golden_statuses"], np.uint8).size
    outputs = np.fromfile(assets / "signals.f32", "<f4").reshape(n, -1)
    return contract, outputs, len(contract["labels"])


def add_bundle(writer: Writer, assets: Path) -> None:
    contract, outputs, classes = read_signals(assets)
    folder = assets.relative_to(writer.folder).as_posix()
    checks = load_checks(assets)
    size = contract["preprocessing"]["image_size"]
    images = np.fromfile(assets / "golden_images.u8", np.uint8).reshape(-1, size, size, 3)
    probabilities, features, logits = np.split(outputs, [classes, outputs.shape[1] - classes], 1)
    for number, image in enumerate(images):
        side = size if number % 3 else size - 1
        parts = probabilities[number], features[number], logits[number]
        case = {
            "document": f"{folder}/input_checks.json",
            "arrays": f"{folder}/input_checks.bin",
            "input": writer.write(image.tobytes()),
            "shorter_side": side,
            "classes": classes,
            "signals": writer.write(outputs[number].tobytes()),
        }
        verdict = check_input(checks, image, side, *parts)
        writer.add("checks", case, verdict)
        picture = np.pad(image, ((0, 0), (7, 8), (0, 0)))  # cropped away
        shown = verdict if side == size else check_input(checks, image, size, *parts)
        point = contract["operating_point"]
        used = point and OperatingPoint(**point)
        decision = decide(parts[0], contract["labels"], used, None)
        writer.add(
            "answers",
            {**writer.write_pixels(picture), "folder": folder, "classes": classes,
             "signals": case["signals"]},
            {"input": shown, "point": point, **decision},
        )  # fmt: skip
    for fault, path in damage(assets):
        place = path.relative_to(writer.folder).as_posix()
        writer.add("self_tests", {"folder": place, "classes": classes}, fault)


def damage(assets: Path) -> Iterator[tuple[str | None, Path]]:
    """Yield what the self-test must find, or None, and the assets where it is."""
    yield None, assets
    _, outputs, classes = read_signals(assets)
    statuses = np.fromfile(assets / "golden_statuses.u8", np.uint8)

    def copy(name: str) -> Path:
        return Path(shutil.copytree(assets, assets.with_name(f"{assets.name}-{name}")))

    changed = copy("picture")
    picture = changed / "golden" / "wide.png"
    content = bytearray(picture.read_bytes())
    content[len(content) // 2 // 4 * 4] ^= 8
    picture.write_bytes(content)
    yield "golden/wide.png is prepared to other bytes.", changed

    swapped = copy("engine")
    (swapped / "signals.f32").write_bytes(outputs[::-1].tobytes())
    yield "This device computes otherwise.", swapped

    drifting = copy("drift")
    weak = outputs.copy()  # the same classes
    weak[:, :classes] = outputs[:, :classes] * 0.9 + 0.1 / classes
    (drifting / "signals.f32").write_bytes(weak.tobytes())
    yield "the mean difference of a probability", drifting

    other = copy("statuses")
    (other / "golden_statuses.u8").write_bytes(((statuses + 1) % 3).astype(np.uint8).tobytes())
    yield "0 the expected status", other

    invalid = copy("sum")
    outputs = outputs.copy()
    outputs[5, 0] += 0.1
    (invalid / "signals.f32").write_bytes(outputs.tobytes())
    yield "The engine returns", invalid


def add_scores(writer: Writer) -> None:
    """Add each domain score, on features that are near, far, and not a number."""
    rng = np.random.default_rng(9)
    image = rng.integers(60, 200, (16, 16, 3), np.uint8)
    arrays = {
        "means": rng.normal(size=(3, 12)), "axes": np.linalg.qr(rng.normal(size=(12, 12)))[0][:4],
        "variances": rng.random(4) + 0.1,
    }  # fmt: skip
    packed = writer.write(b"".join(part.astype("<f4").tobytes() for part in arrays.values()))
    shapes = {name: list(part.shape) for name, part in arrays.items()}
    for score in ("probability", "energy", "distance"):
        for unit_length in (False, True):
            domain: Case = {"score": score, "threshold": 0.0, "arrays": {}}
            if score == "distance":
                domain |= {"threshold": 30.0, "arrays": shapes, "unit_length": unit_length}
                domain |= {"rest_variance": 0.3}
            document = {
                "engine_sha256": "0" * 64,
                "quality": {"brightness": {"low": 20.0, "high": 240.0}},
                "domain": domain,
            }
            name = writer.write(json.dumps(document).encode())
            loaded = writer.folder / f"{score}-{unit_length}"
            loaded.mkdir()
            shutil.copyfile(writer.folder / name, loaded / "input_checks.json")
            shutil.copyfile(writer.folder / packed, loaded / "input_checks.bin")
            checks = load_checks(loaded)
            near, far = arrays["means"][1], rng.normal(0, 9, 12)
            for features in (near, far, np.full(12, np.nan), np.zeros(12)):
                logits = rng.normal(0, 3, 3)
                values = np.exp(logits) / np.exp(logits).sum()
                parts = [part.astype("<f4") for part in (values, features, logits)]
                case = {
                    "document": name, "arrays": packed, "input": writer.write(image.tobytes()),
                    "shorter_side": 16, "classes": 3,
                    "signals": writer.write(np.concatenate(parts).tobytes()),
                }  # fmt: skip
                writer.add("checks", case, check_input(checks, image, 16, *parts))
