"""What a command attempts to reach, seen where it can reach nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

INTERNET = re.compile(r"AF_INET6?\b")


def list_attempts(folder: Path, *command: str) -> list[str]:
    """Return each try of a command, or of its children, to reach the internet.

    It runs where there is no network, so that a try fails; strace sees it all the same.
    """
    log = folder / "calls.txt"
    calls = "trace=connect,sendto,sendmsg,sendmmsg"
    # As a user's shell has it: the product itself must set what turns telemetry off.
    settings = {name: v for name, v in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        ["unshare", "-n", "strace", "-f", "-qq", "--seccomp-bpf", "-e", calls, "-o", str(log),
         *command],
        capture_output=True, text=True, check=False, cwd=folder, env=settings,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [line for line in log.read_text().splitlines() if INTERNET.search(line)]


@pytest.fixture
def isolated(tmp_path: Path) -> Path:
    for tool in ("unshare", "strace"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    probe = ["unshare", "-n", "strace", "-f", "-o", "/dev/null", "true"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine gives no network namespace, or no right to trace")
    return tmp_path
