"""The compilers that `prepare.py` set up: sources in, a program that runs on a folder of cases."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROJECTS = Path(str(resources.files("lesiontk.deploy.mobile")))
KOTLIN = PROJECTS / "android" / "app" / "src" / "main" / "kotlin" / "com" / "example" / "lesion"
SWIFT = PROJECTS / "ios"
CORE = {
    "kotlin": sorted((PROJECTS / "android" / "core").rglob("*.kt")),
    "swift": sorted((SWIFT / "Core").glob("*.swift")),
}
"""The libraries, which need no framework of a phone: compiled and run here, apart from the apps."""
LIBRARIES = ("kotlin-stdlib", "kotlinx-serialization-json-jvm", "kotlinx-serialization-core-jvm")


class Kotlin:
    """The compiler for a JVM. `jars` is its folder."""

    def __init__(self, tools: Path) -> None:
        self.jars = tools / "kotlin"
        if not self.jars.is_dir():
            pytest.skip("no Kotlin compiler here: `make test-mobile` sets one up")
        found = [next(self.jars.glob(f"{name}-[0-9]*.jar")) for name in LIBRARIES]
        self.libraries = ":".join(map(str, found))

    def compile(self, sources: Sequence[Path], out: Path, *used: Path) -> str:
        """Compile into `out`, with the classes `used`; return the errors and warnings, or ""."""
        main = "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"
        options = ["-no-stdlib", "-no-reflect", "-Werror", "-jvm-target", "17"]
        libraries = ":".join([*map(str, used), self.libraries])
        return report(
            ["java", "-cp", f"{self.jars}/*", main, *options, "-cp", libraries,
             "-d", str(out), *map(str, sources)]
        )  # fmt: skip

    def build_core(self, work: Path) -> Path:
        """Compile the library; return its classes."""
        assert self.compile(CORE["kotlin"], work / "core") == ""
        return work / "core"

    def build(self, work: Path) -> list[str]:
        """Return the command of the program that prints the answers to the cases in `work`."""
        core = self.build_core(work)
        app = [KOTLIN / "Describe.kt", HERE / "Golden.kt"]
        assert self.compile(app, work / "classes", core) == ""
        classes = f"{work / 'classes'}:{core}:{self.libraries}"
        return ["java", "-cp", classes, "GoldenKt", str(work / "cases")]


class Swift:
    """The compiler on the path, or Debian's in its own root, which then sees `work` as ``/mnt``."""

    def __init__(self, tools: Path) -> None:
        self.root = None if shutil.which("swiftc") else tools / "swift"
        if self.root is not None and not self.root.is_dir():
            pytest.skip("no Swift compiler here: `make test-mobile` sets one up")

    def run(self, work: Path, command: str) -> list[str]:
        """Return the command that runs a line of a shell in `work`."""
        if self.root is None:
            return ["sh", "-c", f"cd {work} && {command}"]
        # In mounts of its own, which end with it: the compiler needs /proc.
        mounts = f"mount -t proc proc {self.root}/proc && mount --bind {work} {self.root}/mnt"
        inside = f"chroot {self.root} sh -c 'cd /mnt && {command}'"
        return ["unshare", "--mount", "sh", "-c", f"{mounts} && {inside}"]

    def compile(self, sources: Sequence[Path], work: Path, options: str) -> str:
        """Call the compiler on copies in `work`; return its errors and warnings."""
        for source in sources:
            shutil.copyfile(source, work / source.name)
        names = " ".join(source.name for source in sources)
        return report(self.run(work, f"swiftc -swift-version 5 {options} {names}"))

    def build(self, work: Path) -> list[str]:
        """Return the command of the program that prints the answers to the cases in `work`."""
        options = "-O -parse-as-library -warnings-as-errors"
        library = "-module-name LesionCore -emit-module -emit-library -static"
        assert self.compile(CORE["swift"], work, f"{options} {library}") == ""
        app = [SWIFT / "App" / "Describe.swift", HERE / "golden.swift"]
        assert self.compile(app, work, f"{options} -I . -L . -lLesionCore -o golden") == ""
        return self.run(work, "./golden cases")


def report(command: Sequence[str]) -> str:
    """Run a command; return the lines of what it printed that name an error or a warning."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    lines = [line for line in done.stdout.splitlines() if "error:" in line or "warning:" in line]
    assert done.returncode == 0 or lines, done.stdout
    return "\n".join(lines) if done.returncode else ""
