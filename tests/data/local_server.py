"""A web server on this machine that misbehaves as real ones do, and what it serves."""

from __future__ import annotations

import hashlib
import io
import re
import threading
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from lesiontk.data.fetch.sources import OfficialSource, RemoteFile

BODY = bytes(range(256)) * 40
OTHER = BODY[::-1]


@dataclass
class Page:
    """What the server answers at one path."""

    body: bytes = BODY
    etag: str = '"first"'
    modified: str = ""
    ranges: bool = True
    length: bool = True
    location: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)  # of the first answers; then 200 or 206
    cuts: list[int] = field(default_factory=list)  # bytes after which the first bodies break off
    range_status: int = 206
    range_start_shift: int = 0
    raw: bytes = b""  # sent once in place of a whole answer
    stalls: bool = False  # once, after the bytes that `cuts` lets through


class Server:
    """Pages by path, and the requests that came: (path, headers)."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.pages: dict[str, Page] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.release = threading.Event()

    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]

    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for _, headers in self.requests]


def answer(handler: BaseHTTPRequestHandler, server: Server) -> None:
    server.requests.append((handler.path, dict(handler.headers.items())))
    page = server.pages.get(handler.path.partition("?")[0])
    if page is None or page.statuses:
        status, body = (404, b"none") if page is None else (page.statuses.pop(0), b"trouble")
        handler.send_response(status)
        for name, value in (page.headers if page else {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
        return
    if page.raw:
        raw, page.raw = page.raw, b""
        handler.wfile.write(raw)
        return
    if page.location:
        handler.send_response(302)
        handler.send_header("Location", page.location)
        handler.end_headers()
        return
    start, status, total = 0, 200, len(page.body)
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    condition = handler.headers.get("If-Range", page.etag or page.modified)
    if asked and page.ranges and condition in (page.etag, page.modified):
        start = int(asked[1])
        status = page.range_status if start < total else 416
    if status == 206:
        start += page.range_start_shift
    body = page.body[start:] if status != 416 else b""
    handler.send_response(status)
    for name, value in (("ETag", page.etag), ("Last-Modified", page.modified)):
        if value:
            handler.send_header(name, value)
    for name, value in page.headers.items():
        handler.send_header(name, value)
    if status == 206:
        handler.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
    if page.length:
        handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    cut = page.cuts.pop(0) if page.cuts else len(body)
    stalls, page.stalls = page.stalls, False
    handler.wfile.write(body[:cut])
    if stalls:
        handler.wfile.flush()
        server.release.wait()


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def zip_of(contents: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in contents.items():
            out.writestr(name, content)
    return buffer.getvalue()


def source_of(*files: RemoteFile) -> OfficialSource:
    return OfficialSource(
        name="s",
        title="Title",
        licence="CC BY-NC",
        citation="Someone 2018",
        homepage="https://home.example",
        files=files,
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
