"""Targets ``android`` and ``ios``: a phone or tablet with LiteRT in an app."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import ClassVar

from lesiontk.deploy.file_names import BUNDLE, PICTURES
from lesiontk.deploy.golden_files import write_golden_files
from lesiontk.deploy.target import LITERT, BundleTarget, Contents, Runtime
from lesiontk.evaluate.input_checks import ARRAYS, DOCUMENT
from lesiontk.records import EngineSpec


@dataclass(frozen=True, slots=True)
class App:
    """A project of this package, the folder of its assets, and how a person builds it."""

    project: str
    assets: str
    instructions: str


APPS = {
    "android": App(
        "android",
        "app/src/main/assets",
        "Copy the folder `android` to where you develop and open it in Android Studio (Ladybug or "
        "later); *Run* installs the app on a phone with Android 7 or later. "
        "`gradle connectedAndroidTest` is the golden test on a connected phone.",
    ),
    "ios": App(
        "ios",
        "Assets",
        "Copy the folder `ios` to where you develop, call `pod install` there and open "
        "`Lesion.xcworkspace` in Xcode 15 or later; choose your team, and *Run* installs the app "
        "on a phone with iOS 17 or later. *Product > Test* is the golden test.",
    ),
}


class Phone(BundleTarget):
    """The LiteRT engine in the project of a minimal app, with its golden outputs as plain bytes."""

    engines: ClassVar[tuple[str, ...]] = (
        "tflite:int8",
        "tflite:mixed",
        "tflite:dynamic_int8",
        "tflite:float16",
        "tflite:float32",
        "tflite:int16x8",
    )

    def runtimes(self, spec: EngineSpec) -> tuple[Runtime, ...]:
        return (LITERT,)

    def add_files(self, folder: Path, engine: Path, spec: EngineSpec) -> Contents:
        self.refuse_filters(spec)
        app = APPS[self.name]
        copy_tree(resources.files(__package__).joinpath(app.project), folder / app.project)
        assets = folder / app.project / app.assets
        assets.mkdir(parents=True)
        for name in (engine.name, DOCUMENT, ARRAYS):
            if (folder / name).is_file():
                shutil.copyfile(folder / name, assets / name)
        golden = write_golden_files(folder, assets, "golden_images.u8", compress=False)
        return Contents(
            f"{app.instructions} The app takes a camera frame, crops, resizes and checks it as "
            "lesiontk does, and shows the probabilities and the decision at the frozen threshold, "
            "or why the picture is refused. It reads labels, sizes and thresholds from "
            f"`{BUNDLE}` in `{app.project}/{app.assets}`, and answers only after it gave the "
            "golden outputs. It is a sample for developers: give it an identifier, a name and an "
            "icon of your own before you distribute it.\n\n"
            "On a computer `run.py` tests the same engine:\n\n"
            "    pip install -r requirements.txt",
            bundle={"mobile": golden},
        )

    def seal(self, folder: Path) -> None:
        app = APPS[self.name]
        assets = folder / app.project / app.assets
        shutil.copyfile(folder / BUNDLE, assets / BUNDLE)
        shutil.copytree(folder / PICTURES, assets / PICTURES)


def copy_tree(source: Traversable, to: Path) -> None:
    """Copy a folder of the package."""
    to.mkdir()
    for entry in source.iterdir():
        if entry.is_dir():
            copy_tree(entry, to / entry.name)
        else:
            (to / entry.name).write_bytes(entry.read_bytes())
