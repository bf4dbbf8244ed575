"""A bundle's server in a process of its own, as a board runs it."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Reply:
    """A response's status, headers by lower-case name, and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Server:
    """A server that runs: its port and its process."""

    port: int
    process: subprocess.Popen[str]

    def ask(
        self,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        method: str = "",
    ) -> Reply:
        """Return the reply to one request on a new connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(
                method or ("GET" if body is None else "POST"), path, body, dict(headers or {})
            )
            reply = connection.getresponse()
            known = {name.lower(): value for name, value in reply.getheaders()}
            return Reply(reply.status, known, reply.read())
        finally:
            connection.close()

    def memory_bytes(self) -> int:
        """Return the memory that the process holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return 1024 * int(found[1])


@contextmanager
def serving(bundle: Path, *words: str, token: str = "") -> Iterator[Server]:
    """Run ``run.py serve`` on a free port until the end of the block, which must end it well."""
    listen = () if "--listen" in words else ("--listen", "127.0.0.1:0")
    environment = {name: text for name, text in os.environ.items() if name != "LESIONTK_TOKEN"}
    process = subprocess.Popen(
        [sys.executable, str(bundle / "run.py"), "serve", *listen, *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**environment, **({"LESIONTK_TOKEN": token} if token else {})},
    )  # fmt: skip
    assert process.stderr is not None
    try:
        said, found = "", None
        while found is None and (line := process.stderr.readline()):  # LiteRT says a line, too
            said, found = said + line, re.search(r":(\d+)/$", line)
        assert found is not None, said
        yield Server(int(found[1]), process)
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "stopped\n", "")
