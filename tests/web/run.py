"""Run the tests of the web app in a headless Chromium: `make test-web`.

    python tests/web/run.py FOLDER

Needs node 20 or later with npm, and Debian's Chromium or another named by CHROMIUM. A machine
without them, or without network for npm, says so and is no failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from lesiontk.errors import MissingRequirementError
from tests.web.prepare import prepare

HERE = Path(__file__).parent


def find_lack(chromium: str) -> str | None:
    """Return what this machine lacks, or None."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return "node or npm is not installed"
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").partition(".")[0]) < 20:
        return f"node is {version.strip()}; expected 20 or later"
    if shutil.which(chromium) is None:
        return f"there is no Chromium at {chromium}; CHROMIUM names another"
    return None


def main(folder: Path) -> int:
    """Set up, prepare and test. Return the exit status."""
    chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    lack = find_lack(chromium)
    if lack is None:
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        if subprocess.run(command, cwd=HERE, check=False).returncode != 0:
            lack = "npm cannot fetch the packages of tests/web/package-lock.json"
    if lack is None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            prepare(folder)
        except MissingRequirementError as error:
            lack = str(error)
    if lack is not None:
        sys.stdout.write(f"SKIPPED: the web app is not tested in a browser: {lack}.\n")
        return 0
    environment = {**os.environ, "CHROMIUM": chromium, "LESIONTK_WEB": str(folder.resolve())}
    environment["PYTHON"] = sys.executable
    tests = sorted(map(str, HERE.glob("*.test.js")))
    command = ["node", "--test", "--test-concurrency=1", *tests]
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
