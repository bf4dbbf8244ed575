"""Set up an ARM64 Python with its runtimes, to be run under emulation: `make test-arm64`.

    python tests/arm64/prepare.py FOLDER [--or-skip]

Needs Debian or Ubuntu with qemu-user-static and debootstrap (installed here where root may). No
system is booted: the ARM64 packages are unpacked, and qemu runs their Python with the ARM64 wheels
of requirements.lock. What is there already is kept, wheels as long as the lock names the same
versions. With ``--or-skip`` a machine that cannot (no root, no network) is told of and no failure.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

LOCK = Path(__file__).parents[2] / "requirements.lock"
TOOLS = {"qemu-aarch64-static": "qemu-user-static", "debootstrap": "debootstrap", "dpkg": "dpkg"}
DISTRIBUTIONS = ("numpy", "pillow", "ai-edge-litert", "onnxruntime")
NEEDED_BY_THEM = ("flatbuffers", "protobuf", "typing-extensions", "tqdm", "packaging")
RELEASE = "bookworm"  # its Python is 3.11, for which the wheels of the lock are

# What both runtimes read about the processors; under emulation they would see the host's, and with
# fewer of them than the host has they crash. A Cortex-A78AE each, the Jetson Orin's.
CPUINFO = """processor\t: {number}
BogoMIPS\t: 62.50
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd42
CPU revision\t: 1

"""


class CannotPrepareError(Exception):
    """This machine lacks what the set-up needs."""


def main(folder: Path, *, or_skip: bool) -> None:
    """Fill the folder with ``root`` (system libraries and Python) and ``site`` (wheels)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        install_tools()
        if not (folder / "root").is_dir():
            make_root(folder / "root")
        make_site(folder / "site")
    except CannotPrepareError as error:
        if not or_skip:
            sys.exit(str(error))
        sys.stdout.write(f"SKIPPED: the bundles are not run as on ARM64: {error}\n")
        return
    sys.stdout.write(f"ARM64 Python is ready in {folder}\n")


def install_tools() -> None:
    """Install what is missing where root may, else say what is."""
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if not missing:
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise CannotPrepareError(
            f"{', '.join(missing)} not found; expected Debian or Ubuntu: sudo apt-get install "
            f"{' '.join(missing)}"
        )
    call("apt-get", "update", "--quiet=2")
    call("apt-get", "install", "--yes", "--quiet=2", *missing)


def make_root(root: Path) -> None:
    """Unpack Python and the libraries it needs; nothing of it is run."""
    temporary = root.with_suffix(".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    options = ["--arch=arm64", "--foreign", "--variant=minbase", "--include=python3"]
    call("debootstrap", *options, RELEASE, str(temporary))
    for package in sorted((temporary / "var/cache/apt/archives").glob("*.deb")):
        call("dpkg", "-x", str(package), str(temporary))
    (temporary / "proc").mkdir(exist_ok=True)
    processors = [CPUINFO.format(number=number) for number in range(os.cpu_count() or 1)]
    (temporary / "proc/cpuinfo").write_text("".join(processors))
    temporary.rename(root)


def make_site(site: Path) -> None:
    """Unpack the ARM64 wheels of the locked versions, unless they are there."""
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", LOCK.read_text().lower(), re.M))
    wanted = [f"{n}=={locked[n]}" for n in (*DISTRIBUTIONS, *NEEDED_BY_THEM) if n in locked]
    versions = site / "versions.txt"
    if versions.is_file() and versions.read_text().split() == wanted:
        return
    shutil.rmtree(site, ignore_errors=True)
    temporary = site.with_suffix(".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    tags = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
    platforms = [word for tag in tags for word in ("--platform", f"{tag}_aarch64")]
    wheels = temporary / "wheels"
    call(
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"),
        *(*platforms, "--python-version", "3.11", "--dest", str(wheels)),
        *wanted,
    )
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(temporary)
    shutil.rmtree(wheels)
    (temporary / "versions.txt").write_text("\n".join(wanted))
    temporary.rename(site)


def call(*command: str) -> None:
    """Run a command; raises `CannotPrepareError` if it fails."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        last = (done.stdout.strip().splitlines() or ["no message"])[-1]
        raise CannotPrepareError(f"{command[0]} failed (exit code {done.returncode}): {last}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), or_skip="--or-skip" in sys.argv[2:])
