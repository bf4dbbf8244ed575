#!/usr/bin/env python3
"""Test this bundle on this machine, and classify images with it.

    python3 run.py self-test
    python3 run.py predict picture.jpg

Research software, not a medical device. Needs Python 3.8 or later, NumPy, the runtime in README.md,
and Pillow to read images; lesiontk is not needed.

Exit codes: 0 as expected; 1 outputs differ from those expected; 2 a file is
missing, damaged or rejected; 3 a missing requirement.
"""

from __future__ import annotations

import os
import sys

# Python would import any module beside this file, compiled or in folders, before installed packages
# of that name: `ListedModules` imports only the bundle's own modules.
HERE = os.path.split(os.path.realpath(__file__))[0]
sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry) != HERE]

# ruff: noqa: E402
import argparse
import hashlib
import importlib
import json
import platform
import re
import time
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

FOLDER = Path(HERE)

try:
    import numpy as np
except ImportError as lacking:
    sys.stderr.write(f"missing requirement: {lacking}. pip install -r requirements.txt\n")
    sys.exit(3)


COPY = "A bundle with changed files does not run: copy it again"


class MissingRequirementError(Exception):
    """Pillow is missing or too old."""

    exit_code = 3


class DamagedError(Exception):
    """Files of the bundle are missing, changed or not listed."""

    exit_code = 2


class OutputError(Exception):
    """The engine's outputs are not probabilities of the labels."""

    exit_code = 2


class ListedModules:
    """An import hook for the modules that SHA256SUMS lists, with precedence over others.

    Nothing else in the folder is imported: no other file, compiled file or package.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listed = read_checksums(folder)[0]

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return the spec of a module of the bundle; None for others."""
        place = name.replace(".", "/")
        for file in (f"{place}.py", f"{place}/__init__.py"):
            if file in self._listed:
                path = self._folder / file
                loader = ListedSource(name, path, self._listed[file])
                package = file.endswith("/__init__.py")  # all modules are found by this hook
                return ModuleSpec(name, loader, origin=str(path), is_package=package)
        if path is None and (self._folder / f"{place}.py").is_file():
            raise DamagedError(f"{place}.py is not listed in SHA256SUMS. {COPY}")
        return None


class ListedSource(SourceFileLoader):
    """A loader that compiles the verified bytes and ignores compiled files."""

    def __init__(self, name: str, path: Path, digest: str) -> None:
        super().__init__(name, str(path))
        self._digest = digest

    def get_code(self, fullname: str) -> CodeType:
        """Return the module's code. Raises `DamagedError` if its file was changed."""
        content = self.get_data(self.path)
        if hashlib.sha256(content).hexdigest() != self._digest:
            raise DamagedError(f"{Path(self.path).name} was changed. {COPY}")
        code: CodeType = compile(content, self.path, "exec", dont_inherit=True)
        return code


def import_picture() -> Any:
    """Return the module that reads images, the only one that needs Pillow."""
    try:
        import picture
        from PIL.Image import Resampling  # noqa: F401 - not in older versions of Pillow
    except ImportError as error:
        raise MissingRequirementError(
            f"Pillow 9.1 or later, to read images ({error}): pip install 'Pillow>=9.1'"
        ) from error
    return picture


# ------------------------------------------------------------------ self-test


def check_files(folder: Path) -> dict[str, Any]:
    """Return the files that differ from SHA256SUMS, or are used but not listed there.

    Images and other files in the folder are not checked; code and bundle.json must be listed.
    """
    listed, damaged = read_checksums(folder)
    used = {"bundle.json", *(path.relative_to(folder).as_posix() for path in list_code(folder))}
    damaged += [name + " is not listed in SHA256SUMS" for name in sorted(used - set(listed))]
    for name, digest in listed.items():
        path = folder / name
        if not path.is_file():
            damaged.append(name + " is missing")
        elif hash_file(path) != digest:
            damaged.append(name + " was changed")
    return {
        "n": len(listed),
        "damaged": damaged,
        "as_expected": not damaged,
        "listed": sorted(listed),
    }


def read_text(path: Path) -> str:
    """Return a file's text. Raises `OSError` for a named pipe, which would block."""
    if path.exists() and not path.is_file():
        raise OSError(f"{path.name} is not a regular file")
    return path.read_text(encoding="utf-8")


def read_checksums(folder: Path) -> tuple[dict[str, str], list[str]]:
    """Return file -> SHA-256 from SHA256SUMS, and the faults of that file itself."""
    listed: dict[str, str] = {}
    try:
        lines = read_text(folder / "SHA256SUMS").splitlines()
    except (OSError, ValueError) as error:
        return listed, [f"SHA256SUMS cannot be read: {error}"]
    broken = []
    for number, line in enumerate(lines, 1):
        digest, _, name = line.partition("  ")
        if not re.fullmatch("[0-9a-f]{64}", digest) or not name or name in listed:
            broken.append(f"line {number} of SHA256SUMS is broken")
        listed[name] = digest
    return listed, broken


def list_code(folder: Path) -> list[Path]:
    """Return every file that Python could import from the folder."""
    return [*folder.glob("*.py"), *folder.glob("enhance/*.py")]


def hash_file(path: Path) -> str:
    """Return a file's SHA-256."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for part in iter(lambda: stream.read(1 << 20), b""):
            digest.update(part)
    return digest.hexdigest()


def require_files(files: dict[str, Any], bundle: dict[str, Any]) -> None:
    """Raise `DamagedError` unless all files are intact, and those that are used are listed."""
    damaged = list(files["damaged"])
    for name in (bundle["engine"]["file"], bundle["golden"]["file"]):
        if not damaged and name not in files["listed"]:
            damaged.append(f"{name} is not listed in SHA256SUMS")
    if damaged:
        more = f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""
        raise DamagedError(f"{'; '.join(damaged[:3])}{more}. {COPY}")


def check_pictures(folder: Path, bundle: dict[str, Any]) -> dict[str, Any]:
    """Return the images whose decoding, crop and resize give other bytes than expected.

    Without Pillow none is read: `as_expected` is then None, and `lacks` is the reason.
    """
    differ = []
    try:
        picture = import_picture()
    except MissingRequirementError as error:
        return {"n": 0, "differ": [], "lacks": str(error), "as_expected": None}
    for name, expected in sorted(bundle["golden"]["pictures"].items()):
        pixels = picture.prepare_picture(
            picture.read_picture(folder / name), bundle["preprocessing"]
        )
        if hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest() != expected:
            differ.append(name)
    return {"n": len(bundle["golden"]["pictures"]), "differ": differ, "as_expected": not differ}


def infer(engine: Any, images: Any, labels: list[str]) -> Any:
    """Return the outputs float32 [N, C]. Raises `OutputError` if C is not the number of labels."""
    outputs = np.asarray(engine.predict(images), np.float32)
    if outputs.shape != (len(images), len(labels)):
        raise OutputError(
            f"the engine returns {list(outputs.shape)}; expected {[len(images), len(labels)]}, "
            f"a probability of each of {', '.join(labels)}"
        )
    return outputs


def compare(expected: Any, received: Any, limits: dict[str, Any]) -> dict[str, Any]:
    """Return the agreement of outputs float32 [N, C] with those expected, within `limits` or not.

    `limits` contains `min_agreement`, the minimum share of images with the same class, and
    `max_mean_drift`, the maximum mean difference of a probability.
    """
    from decision import are_probabilities

    finite = bool(np.isfinite(received).all())
    valid = are_probabilities(received)
    agreement = float((expected.argmax(axis=1) == received.argmax(axis=1)).mean())
    drift = float(np.abs(expected - received).mean()) if finite else None
    least, most = limits["min_agreement"], limits["max_mean_drift"]
    return {
        "n": len(expected),
        "finite": finite,
        "probabilities": valid,
        "agreement": agreement,
        "min_agreement": least,
        "mean_drift": drift,
        "max_mean_drift": most,
        "as_expected": valid and agreement >= least and drift is not None and drift <= most,
    }


def time_engine(engine: Any, images: Any, rounds: int) -> dict[str, Any]:
    """Return the milliseconds of `rounds` single images, after a warm-up of a tenth of them."""
    warmup = max(1, rounds // 10)
    if hasattr(engine, "time_images"):
        samples = engine.time_images(images, rounds, warmup)
    else:
        samples = []
        for round_ in range(warmup + rounds):
            image = images[round_ % len(images)][np.newaxis]
            start = time.perf_counter()
            engine.predict(image)
            if round_ >= warmup:
                samples.append(1000 * (time.perf_counter() - start))
    return {
        "n": len(samples),
        "median": float(np.median(samples)),
        "p90": float(np.percentile(samples, 90)),
        "samples": samples,
    }


def test_bundle(
    folder: Path, bundle: dict[str, Any], files: dict[str, Any], options: Any
) -> dict[str, Any]:
    """Return the results of the self-test: files, preprocessing, outputs, latency."""
    for name in (bundle["engine"]["file"], bundle["golden"]["file"]):
        if not (folder / name).is_file():
            raise DamagedError(f"{name} is missing. {COPY}")
    golden = np.load(folder / bundle["golden"]["file"])
    findings: dict[str, Any] = {
        "bundle": bundle["name"],
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "files": {name: files[name] for name in ("n", "damaged", "as_expected")},
        "pictures": check_pictures(folder, bundle),
        "pillow": getattr(sys.modules.get("PIL"), "__version__", None),
    }
    engine = open_engine(folder, bundle, options)
    try:
        received = infer(engine, golden["images"], bundle["labels"])
        findings["answers"] = compare(golden["probabilities"], received, bundle["golden"])
        if options.rounds:
            findings["latency_ms"] = time_engine(engine, golden["images"], options.rounds)
    finally:
        engine.close()
    findings["engine"] = engine.description
    checks = ("files", "pictures", "answers")
    findings["as_expected"] = all(findings[name]["as_expected"] is not False for name in checks)
    return findings


def show_findings(found: dict[str, Any]) -> str:
    """Return the results as text."""
    outputs, engine = found["answers"], found["engine"]
    drift = outputs["mean_drift"]
    files = found["files"]
    lines = [
        "{bundle} on {machine}, Python {python}".format(**found),
        "engine: " + ", ".join(f"{k} {v}" for k, v in engine.items() if v != ""),
        "files: {}".format("; ".join(files["damaged"]) or "all {n} intact".format(**files)),
        "pictures: " + describe_pictures(found["pictures"]),
        "outputs: the same class in {:.1%} of {n} images (at least {min_agreement:.1%}), mean "
        "difference of a probability {} (at most {max_mean_drift})".format(
            outputs["agreement"], "not a number" if drift is None else round(drift, 6), **outputs
        ),
    ]
    if "latency_ms" in found:
        lines.append("latency: median {median:.2f} ms, p90 {p90:.2f} ms, n = {n}".format(
            **found["latency_ms"]
        ))  # fmt: skip
    lines.append("as expected" if found["as_expected"] else "NOT AS EXPECTED")
    return "\n".join(lines)


def describe_pictures(pictures: dict[str, Any]) -> str:
    """Return the result of decoding, crop and resize."""
    if "lacks" in pictures:
        return "not checked, and `predict` cannot run: {lacks}".format(**pictures)
    if pictures["differ"]:
        return ", ".join(pictures["differ"]) + " differ"
    return "all {n} prepared to the same bytes".format(**pictures)


# -------------------------------------------------------------------- predict


def predict_pictures(folder: Path, bundle: dict[str, Any], options: Any) -> dict[str, Any]:
    """Return one prediction for each readable image, and the failures."""
    from decision import are_probabilities, decide

    labels, point = bundle["labels"], bundle["operating_point"]
    predictions, failures = [], []
    picture = import_picture()  # before an engine is built, which takes minutes
    engine = open_engine(folder, bundle, options)
    try:
        for path in options.pictures:
            try:
                image = picture.prepare_picture(picture.read_picture(path), bundle["preprocessing"])
            except picture.PictureError as error:
                failures.append({"image": str(path), "message": str(error)})
                continue
            values = infer(engine, image[np.newaxis], labels)[0]
            if not are_probabilities(values[np.newaxis]):
                raise OutputError(
                    f"{path}: the engine returns {values.tolist()}; expected finite probabilities "
                    "that sum to 1. Its file is damaged, or this machine cannot run it: try "
                    "`run.py self-test`"
                )
            prediction = decide(values, labels, point, bundle["temperature"])
            predictions.append({"image": str(path), **prediction})
    finally:
        engine.close()
    return {
        "bundle": bundle["name"],
        "labels": labels,
        "operating_point": point,
        "predictions": predictions,
        "failures": failures,
        "notice": bundle["notice"],
    }


def show_predictions(document: dict[str, Any]) -> str:
    """Return the predictions as text."""
    from decision import describe

    point = document["operating_point"]
    lines = []
    for entry in document["predictions"]:
        lines += describe(entry, point)
    lines += ["error: " + entry["message"] for entry in document["failures"]]
    return "\n".join([*lines, document["notice"]])


# --------------------------------------------------------------- command line


def open_engine(folder: Path, bundle: dict[str, Any], options: Any) -> Any:
    """Open the engine with the requested runtime, or the bundle's first."""
    name = options.runtime or next(iter(bundle["runtimes"]))
    return importlib.import_module(bundle["runtimes"][name]).open_engine(
        folder, bundle, options.threads
    )


def parse_arguments(bundle: dict[str, Any]) -> Any:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").strip(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.required = True
    test = commands.add_parser("self-test", help="compare with the expected outputs")
    test.add_argument("--rounds", type=int, default=50, help="number of timed images, 0 for none")
    predict = commands.add_parser("predict", help="classify images")
    predict.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE")
    for command in (test, predict):
        command.add_argument("--json", action="store_true", help="one JSON document")
        command.add_argument("--threads", type=int, default=1)
        command.add_argument("--runtime", choices=list(bundle["runtimes"]))
    return parser.parse_args()


def main() -> int:
    """Run the command line."""
    try:
        sys.meta_path.insert(0, ListedModules(FOLDER))
        files = check_files(FOLDER)  # before any other file of the folder is used
        bundle = json.loads(read_text(FOLDER / "bundle.json"))
        options = parse_arguments(bundle)
        if options.command == "self-test":
            document = test_bundle(FOLDER, bundle, files, options)
            text, code = show_findings(document), 0 if document["as_expected"] else 1
        else:
            require_files(files, bundle)
            document = predict_pictures(FOLDER, bundle, options)
            text, code = show_predictions(document), 2 if document["failures"] else 0
    except Exception as error:  # noqa: BLE001 - the runtimes' exceptions have no common base
        code = getattr(error, "exit_code", 2)
        kind = "missing requirement: " if code == 3 else "error: "
        sys.stderr.write(f"{kind}{str(error) or type(error).__name__}\n")
        return int(code)
    sys.stdout.write((json.dumps(document, indent=1) if options.json else text) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
