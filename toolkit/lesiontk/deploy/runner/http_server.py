"""The HTTP interface of a bundle: ``/predict``, ``/health``, ``/metrics`` and the page."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any

from lesiontk.deploy.runner.access import Access, AccessError
from lesiontk.deploy.runner.metrics import TYPE, Metrics
from lesiontk.deploy.runner.worker import BusyError, LateError, Worker

JSON = "application/json; charset=utf-8"
CONNECTIONS = 256
LINGER_S = 2.0
NONE: Mapping[str, str] = MappingProxyType({})
SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}
"""Also what a page needs to use threads (the last two)."""


@dataclass(frozen=True)
class Limits:
    """Bytes of an upload, seconds for the upload and for the answer."""

    upload_bytes: int
    seconds: float


@dataclass(frozen=True)
class Page:
    """A file of the page: its bytes and its type."""

    content: bytes
    kind: str


class RefusedError(Exception):
    """A request that is answered with an error; the connection is closed after it."""

    def __init__(self, status: HTTPStatus, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


class BundleServer(ThreadingHTTPServer):
    """A thread for each connection, up to `CONNECTIONS`, and one for the engine.

    `pages` maps paths to files, read once: no path of a request reaches the file system. `served`
    says in ``/health`` which engine is used.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        access: Access,
        worker: Worker,
        metrics: Metrics,
        limits: Limits,
        pages: Mapping[str, Page],
        served: Mapping[str, str],
    ) -> None:
        self.access, self.worker, self.metrics = access, worker, metrics
        self.limits, self.pages, self.served = limits, pages, served
        self._places = threading.BoundedSemaphore(CONNECTIONS)
        self._idle = threading.Condition()
        self._active = 0
        self._reading: dict[socket.socket, float] = {}
        if ":" in access.host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((access.host, access.port), Handler)
        except OSError as error:
            raise AccessError(
                f"cannot listen on {access.host}, port {access.port}: {error}; expected an address "
                "of this machine and a free port: --listen HOST:PORT"
            ) from error

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection, or close it if there are too many."""
        if not self._places.acquire(blocking=False):
            self.metrics.count_response(503)
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def await_headers(self, connection: socket.socket) -> None:
        """Give a connection the time limit for its next request, up to the end of the headers."""
        self._reading[connection] = time.monotonic() + self.limits.seconds

    def stop_awaiting(self, connection: socket.socket) -> None:
        """End that limit: the headers are read."""
        self._reading.pop(connection, None)

    def service_actions(self) -> None:
        """End connections whose headers come too slowly; called twice a second."""
        now = time.monotonic()
        for connection, end in list(self._reading.items()):
            if now > end:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # it is closed

    def track(self, change: int) -> None:
        """Count the requests that are being answered."""
        with self._idle:
            self._active += change
            self._idle.notify_all()

    def wait_until_answered(self) -> None:
        """Wait until no request is being answered, at most as long as an answer may take."""
        with self._idle:
            self._idle.wait_for(lambda: self._active == 0, self.limits.seconds)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Name an error in one line; a client that went away is none."""
        error = sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, TimeoutError, socket.timeout)):
            sys.stderr.write(f"error in a request: {type(error).__name__}: {error}\n")


class Handler(BaseHTTPRequestHandler):
    """One connection's requests."""

    server: BundleServer
    protocol_version = "HTTP/1.1"
    server_version = "lesiontk"
    sys_version = ""
    wbufsize = 1 << 16  # one packet for an answer: two would wait for each other
    disable_nagle_algorithm = True

    def setup(self) -> None:
        """Bound the time that a client may take for each part of a request."""
        super().setup()
        self.connection.settimeout(self.server.limits.seconds)

    def handle_one_request(self) -> None:
        """Read and answer a request; the time limit holds for all of its headers."""
        self.server.await_headers(self.connection)
        try:
            super().handle_one_request()
        finally:
            self.server.stop_awaiting(self.connection)

    def parse_request(self) -> bool:
        """Read the headers; what follows has limits of its own."""
        parsed = super().parse_request()
        self.server.stop_awaiting(self.connection)
        return parsed

    def do_GET(self) -> None:
        """Answer with health, metrics or a file of the page."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Answer with the prediction of the image in the body."""
        self._answer(self._post)

    do_HEAD = do_GET  # noqa: N815
    do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_POST  # noqa: N815

    def handle_expect_100(self) -> bool:
        """Tell a client that waits for it to send the body."""
        accepted = super().handle_expect_100()
        self.wfile.flush()
        return accepted

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing: an access log would hold who asked when."""

    def _answer(self, respond: Callable[[str], None]) -> None:
        self.server.track(1)
        try:
            self._respond(respond)
        finally:
            self.server.track(-1)

    def _respond(self, respond: Callable[[str], None]) -> None:
        try:
            access = self.server.access
            if not access.is_own(self.headers.get("Host"), self.headers.get("Origin")):
                raise RefusedError(
                    HTTPStatus.FORBIDDEN, "the request is not for this address or not from its page"
                )
            path = self.path.partition("?")[0]
            if path != "/health" and not access.allows(self.headers.get("Authorization")):
                raise RefusedError(
                    HTTPStatus.UNAUTHORIZED,
                    "the token is missing or wrong; expected Authorization: Bearer TOKEN",
                    WWW_Authenticate='Basic realm="lesiontk: any user, the token as password"',
                )
            respond(path)
        except RefusedError as error:
            headers = {name.replace("_", "-"): text for name, text in error.headers.items()}
            self._send_json(error.status, {"error": str(error)}, {**headers, "Connection": "close"})
            self._finish()

    def _get(self, path: str) -> None:
        server = self.server
        stated = set(self.headers.get_all("Content-Length", ["0"]))
        if stated != {"0"} or "Transfer-Encoding" in self.headers:
            # Left unread, it would be taken for the connection's next request.
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"expected {self.command} without a body")
        if path == "/health":
            status = HTTPStatus.OK if server.worker.alive else HTTPStatus.SERVICE_UNAVAILABLE
            state = "ok" if server.worker.alive else "engine ended"
            self._send_json(status, {"status": state, **server.served})
        elif path == "/metrics":
            self._send(HTTPStatus.OK, server.metrics.render(server.worker.waiting).encode(), TYPE)
        elif path in server.pages:
            page = server.pages[path]
            self._send(HTTPStatus.OK, page.content, page.kind)
        elif path == "/predict":
            raise RefusedError(
                HTTPStatus.METHOD_NOT_ALLOWED, "expected POST with an image", Allow="POST"
            )
        else:
            raise RefusedError(
                HTTPStatus.NOT_FOUND, "expected POST /predict, GET /health or GET /metrics"
            )

    def _post(self, path: str) -> None:
        server = self.server
        if self.command != "POST" or path != "/predict":
            known = path in ("/predict", "/health", "/metrics") or path in server.pages
            allowed = "POST" if path == "/predict" else "GET"
            if known:
                raise RefusedError(
                    HTTPStatus.METHOD_NOT_ALLOWED, f"expected {allowed} {path}", Allow=allowed
                )
            raise RefusedError(HTTPStatus.NOT_FOUND, "expected POST /predict")
        length = self._read_length()
        try:
            with server.worker.slot():
                job = server.worker.run(self._read_body(length), server.limits.seconds)
        except RefusedError:
            raise
        except BusyError:
            raise RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE, "all places are taken; try again", Retry_After="1"
            ) from None
        except LateError:
            raise RefusedError(
                HTTPStatus.GATEWAY_TIMEOUT, f"no answer within {server.limits.seconds:g} s"
            ) from None
        except Exception as error:
            message = f"the engine failed: {str(error) or type(error).__name__}"
            raise RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, message) from error
        document = job.answer
        for entry in document["predictions"]:
            server.metrics.count_prediction(entry["label"], job.seconds)
        status = HTTPStatus.UNPROCESSABLE_ENTITY if document["failures"] else HTTPStatus.OK
        self._send_json(status, document)

    def _read_length(self) -> int:
        stated = self.headers.get_all("Content-Length", [])
        if not stated or "Transfer-Encoding" in self.headers:
            raise RefusedError(
                HTTPStatus.LENGTH_REQUIRED, "expected the image's bytes with Content-Length"
            )
        text = ", ".join(dict.fromkeys(stated))  # the same one twice is no fault, RFC 9110, 8.6
        if not text.isascii() or not text.isdigit() or len(text) > 15:
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"Content-Length is {text[:20]!r}")
        limit = self.server.limits.upload_bytes
        if int(text) > limit:
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"received {int(text):,} bytes; expected at most {limit:,}",
            )
        return int(text)

    def _read_body(self, length: int) -> bytes:
        """Return the body. The time limit holds for all of it, not for each packet."""
        end = time.monotonic() + self.server.limits.seconds
        parts: list[bytes] = []
        left = length
        while left:
            self.connection.settimeout(max(0.001, end - time.monotonic()))
            try:
                part = self.rfile.read1(min(left, 1 << 16))
            except (TimeoutError, socket.timeout):
                raise RefusedError(
                    HTTPStatus.REQUEST_TIMEOUT,
                    f"received {length - left} of {length} bytes within "
                    f"{self.server.limits.seconds:g} s",
                ) from None
            if not part:
                raise RefusedError(
                    HTTPStatus.BAD_REQUEST,
                    f"the upload ended after {length - left} of {length} bytes",
                )
            parts.append(part)
            left -= len(part)
        self.connection.settimeout(self.server.limits.seconds)
        return b"".join(parts)

    def _finish(self) -> None:
        """Close a connection whose body was not read, after the client could read the answer.

        Closing at once would reset the connection, and the answer could be lost.
        """
        self.close_connection = True
        end = time.monotonic() + min(LINGER_S, self.server.limits.seconds)
        left = self.server.limits.upload_bytes
        try:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_WR)
            while left > 0 and time.monotonic() < end:
                self.connection.settimeout(max(0.001, end - time.monotonic()))
                part = self.rfile.read1(1 << 16)
                if not part:
                    return
                left -= len(part)
        except OSError:
            return  # the client is gone

    def _send_json(
        self, status: HTTPStatus, document: Mapping[str, object], headers: Mapping[str, str] = NONE
    ) -> None:
        self._send(status, json.dumps(document, indent=1).encode() + b"\n", JSON, headers)

    def _send(
        self, status: HTTPStatus, content: bytes, kind: str, headers: Mapping[str, str] = NONE
    ) -> None:
        self.server.metrics.count_response(int(status))
        self.send_response(status)
        for name, text in {**SECURITY, **headers}.items():
            self.send_header(name, text)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
