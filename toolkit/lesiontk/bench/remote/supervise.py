"""Runs on the device: starts the bundle's runner, apart from the connection, and cleans up.

    python3 supervise.py FOLDER LEASE_S WORD...

The words run in ``bundle``; their output is in ``out``, their errors in ``err``, and ``code``
appears when they have ended. The folder is deleted LEASE_S seconds after the last change of
``lease``, so that nothing stays on the device if nobody comes back. Python 3.8.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path


def main(folder: Path, lease_s: float, words: list[str]) -> None:
    """Run the words, wait for the lease to end, and delete the folder."""
    if os.fork():  # the connection's shell waits for no child
        return
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    (folder / "pid").write_text(str(os.getpid()))
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        runner = subprocess.Popen(words, cwd=folder / "bundle", stdin=null, stdout=out, stderr=err)
    signal.signal(signal.SIGTERM, lambda *_: stop(folder, runner))
    seen, until = 0.0, time.monotonic() + lease_s
    told = False
    while time.monotonic() < until:
        try:
            changed = (folder / "lease").stat().st_mtime
        except OSError:
            break
        if changed != seen:  # not its age: the device's clock may jump
            seen, until = changed, time.monotonic() + lease_s
        if not told and runner.poll() is not None:
            (folder / "code.new").write_text(str(runner.returncode))
            (folder / "code.new").rename(folder / "code")
            told = True
        time.sleep(0.2)
    stop(folder, runner)


def stop(folder: Path, runner: subprocess.Popen[bytes]) -> None:
    """End the runner, delete the folder, and end."""
    runner.kill()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
