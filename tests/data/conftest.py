"""The local server, and sources whose files it holds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from lesiontk.data.fetch.download import DownloadPolicy
from lesiontk.data.fetch.sources import OfficialSource, RemoteFile
from tests.data.local_server import BODY, Page, Server, answer, md5, source_of


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self, state)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        state = Server(f"http://127.0.0.1:{httpd.server_address[1]}")
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        state.release.set()
        httpd.shutdown()
        thread.join()


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def policy(slept: list[float]) -> DownloadPolicy:
    return DownloadPolicy(tries=4, timeout=5.0, sleep=slept.append)


@pytest.fixture
def one(server: Server) -> OfficialSource:
    """A source of one file, whose checksum is published."""
    server.pages["/a.bin"] = Page()
    return source_of(
        RemoteFile(name="a.bin", url=f"{server.url}/a.bin", bytes=len(BODY), md5=md5(BODY))
    )


@pytest.fixture
def unpublished(server: Server) -> OfficialSource:
    """A source of one file of which the publisher states nothing."""
    server.pages["/a.bin"] = Page()
    return source_of(RemoteFile(name="a.bin", url=f"{server.url}/a.bin"))
