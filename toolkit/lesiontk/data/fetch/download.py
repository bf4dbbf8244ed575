"""Download one file over HTTP: resumed where it broke off, from the address meant and no other.

A download grows in ``NAME.part``; ``NAME.part.json`` says of which version it is a part.
"""

from __future__ import annotations

import json
import logging
import re
import socket
import ssl
import string
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.error import URLError
from urllib.parse import quote, urljoin, urlsplit

from lesiontk.data.fetch.archives import ProgressCallback, free_disk_bytes
from lesiontk.data.fetch.sources import LOOPBACK, RemoteFile, check_url
from lesiontk.errors import DataError, MissingRequirementError, UsageError

logger = logging.getLogger(__name__)
T = TypeVar("T")

USER_AGENT = "Mozilla/5.0 (compatible; lesiontk data fetch)"  # Dataverse refuses urllib's own
_CHUNK_BYTES = 1 << 20
_MAX_FILE_BYTES = 64 << 30
_MAX_JSON_BYTES = 32 << 20
_MAX_REDIRECTS = 10
_MAX_WAIT = 120.0  # seconds
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class DownloadPolicy:
    """How patient a download is: tries per file, seconds without an answer, the wait between."""

    tries: int = 5
    timeout: float = 60.0
    sleep: Callable[[float], None] = time.sleep
    free_bytes: Callable[[Path], int] = free_disk_bytes

    def __post_init__(self) -> None:
        if self.tries < 1 or self.timeout <= 0:
            raise UsageError(
                f"tries is {self.tries} and timeout {self.timeout}; expected 1 or more and above 0."
            )


DEFAULT_POLICY = DownloadPolicy()


@dataclass(frozen=True, slots=True)
class Statement:
    """Somebody's word on a file: `kind` is ``bytes``, ``md5`` or ``sha256``."""

    kind: str
    value: str
    origin: str


def part_of(path: Path) -> Path:
    """Where the file grows until it is verified."""
    return path.with_name(f"{path.name}.part")


def state_of(path: Path) -> Path:
    """Where it stands of which version (ETag or date) of which URL the part is a part."""
    return path.with_name(f"{path.name}.part.json")


def download_file(
    file: RemoteFile,
    path: Path,
    statements: tuple[Statement, ...],
    policy: DownloadPolicy,
    progress: ProgressCallback,
) -> None:
    """Bring the whole of `file` into ``NAME.part``, from where an earlier try stopped.

    `statements` decide whether a part may be continued without a validator; the caller verifies.

    Raises:
        DataError: the server does not have the file, or one of another size, or redirects to an
            address that is not HTTPS.
        MissingRequirementError: no connection, no whole file in `policy.tries`, or a full disk.
    """
    size = next((int(s.value) for s in statements if s.kind == "bytes"), None)
    verifiable = any(s.kind != "bytes" for s in statements)
    _retry(file.url, policy, lambda: _transfer(file.url, path, size, verifiable, policy, progress))


class TransferError(Exception):
    """A try failed in a way that may pass; `wait` is in seconds, `final` when it will not pass."""

    def __init__(self, reason: str, wait: float | None = None, *, final: bool = False) -> None:
        super().__init__(reason)
        self.wait, self.final = wait, final


def _retry(url: str, policy: DownloadPolicy, action: Callable[[], T]) -> T:
    reason = ""
    for attempt in range(1, policy.tries + 1):
        try:
            return action()
        except TransferError as error:
            reason = str(error)
            logger.warning("%s: %s (try %d of %d)", url, reason, attempt, policy.tries)
            if error.final:
                break
            wait = 2.0 ** (attempt - 1) if error.wait is None else error.wait
            if wait and attempt < policy.tries:
                policy.sleep(min(wait, _MAX_WAIT))
    raise MissingRequirementError(
        f"{urlsplit(url).hostname} did not deliver {url} (try {attempt} of {policy.tries}: "
        f"{reason}); expected a network that reaches it. What arrived is kept; a later run goes on."
    )


def _transfer(
    url: str,
    path: Path,
    size: int | None,
    verifiable: bool,
    policy: DownloadPolicy,
    progress: ProgressCallback,
) -> None:
    offset, total, headers = _resume(path, url, verifiable)
    if offset and offset == total:
        return
    with _request(url, headers, policy) as response:
        validator, length = _validator(response), response.headers.get("Content-Length", "")
        if response.status == 200:
            offset = 0  # nothing was at hand, the server ignores ranges, or the file has changed
            total = int(length) if length.isdecimal() else size
        elif offset and response.status in (206, 416):
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
            changed = validator not in ("", headers.get("If-Range", validator))
            if span is None or int(span[1]) != offset or changed:
                part_of(path).unlink()
                raise TransferError(f"{part_of(path).name} is no part of what is there now", 0)
            total = int(span[2])
        else:
            _refuse_status(response, url)
        if size is not None and total != size:
            raise DataError(f"{url} announces {total} bytes; expected {size}. Not downloaded.")
        if total is not None and total - offset > (free := policy.free_bytes(path.parent)):
            raise MissingRequirementError(
                f"{path.name} needs {total - offset} bytes more and {path.parent} has {free} "
                f"free; make room or choose another folder."
            )
        state = {"url": url, "validator": validator, "total": total}
        state_of(path).write_text(json.dumps(state), encoding="utf-8")
        _receive(response, path, offset, total, progress)


def _resume(path: Path, url: str, verifiable: bool) -> tuple[int, int | None, dict[str, str]]:
    """Return the bytes at hand, of how many, and the headers that ask for the rest.

    Without a validator (RFC 9110, 13.1.5) two versions of a file could be mixed: then a part
    counts only where a checksum would reveal it.
    """
    part, state = part_of(path), state_of(path)
    try:
        offset, left = part.stat().st_size, json.loads(state.read_text(encoding="utf-8"))
        validator, total = str(left["validator"]), left["total"]
        usable = left["url"] == url and (validator or verifiable)
    except (OSError, ValueError, KeyError, TypeError):
        return 0, None, {}
    if not offset or not usable:
        return 0, None, {}
    conditional = {"If-Range": validator} if validator else {}
    return offset, total, {"Range": f"bytes={offset}-", **conditional}


def _validator(response: HTTPResponse) -> str:
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _receive(
    response: HTTPResponse, path: Path, offset: int, total: int | None, progress: ProgressCallback
) -> None:
    done = told = offset
    limit = _MAX_FILE_BYTES if total is None else total
    progress(f"download {path.name}", done, total)
    with part_of(path).open("ab" if offset else "wb") as out:
        while done < limit:
            try:
                chunk = response.read1(min(_CHUNK_BYTES, limit - done))
            except (OSError, HTTPException) as error:
                raise TransferError(f"broke off after {done} bytes ({error})") from error
            if not chunk:
                break
            out.write(chunk)
            done += len(chunk)
            if done == total or done - told >= _CHUNK_BYTES:
                told = done
                progress(f"download {path.name}", done, total)
    if total is not None and done < total:
        raise TransferError(f"broke off after {done} of {total} bytes")


def _request(url: str, headers: Mapping[str, str], policy: DownloadPolicy) -> HTTPResponse:
    """Open `url` and return the answer, whatever its status, after permitted redirects."""
    for _ in range(_MAX_REDIRECTS):
        response = _open(url, headers, policy.timeout)
        if response.status not in (301, 302, 303, 307, 308):
            return response
        with response:
            location = response.headers.get("Location", "")
        try:
            target = urljoin(url, quote(location, safe=string.punctuation))
            check_url(target, may_be_plain=urlsplit(url).hostname in LOOPBACK)
        except (DataError, ValueError) as error:
            raise DataError(
                f"{url} redirects to {location!r}, which is refused. {error}"
            ) from error
        url = target
    raise DataError(f"{url} is redirect number {_MAX_REDIRECTS}; expected a file sooner.")


def _open(url: str, headers: Mapping[str, str], timeout: float) -> HTTPResponse:
    # An opener without handlers for file://, ftp:// and data:, and without automatic redirects.
    opener = urllib.request.OpenerDirector()
    if urlsplit(url).hostname not in LOOPBACK:
        opener.add_handler(urllib.request.ProxyHandler())
    opener.add_handler(urllib.request.HTTPHandler())
    opener.add_handler(urllib.request.HTTPSHandler())
    request = urllib.request.Request(url, headers={"User-Agent": USER_AGENT, **headers})
    try:
        return cast(HTTPResponse, opener.open(request, timeout=timeout))
    except (OSError, HTTPException, UnicodeError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        final = isinstance(reason, socket.gaierror | ssl.SSLCertVerificationError)
        host = urlsplit(url).hostname
        text = " ".join(str(reason).split())
        raise TransferError(f"{host} cannot be reached ({text})", final=final) from error


def _refuse_status(response: HTTPResponse, url: str) -> None:
    """Raise for an answer that is not the file."""
    if response.status in _TRANSIENT:
        wait = response.headers.get("Retry-After", "")
        raise TransferError(f"HTTP {response.status}", float(wait) if wait.isdecimal() else None)
    raise DataError(
        f"received HTTP {response.status} {response.reason} from {url}; expected the file. It may "
        f"have moved, or the server wants a browser."
    )


def read_json(url: str, policy: DownloadPolicy) -> Any:
    """Return the JSON document at `url`; raises the errors of `download_file`."""

    def read() -> bytes:
        with _request(url, {"Accept": "application/json"}, policy) as response:
            if response.status != 200:
                _refuse_status(response, url)
            try:
                return response.read(_MAX_JSON_BYTES)
            except (OSError, HTTPException) as error:
                raise TransferError(f"the connection broke ({error})") from error

    text = _retry(url, policy, read)
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{url} answered {text[:60]!r}; expected JSON.") from error
