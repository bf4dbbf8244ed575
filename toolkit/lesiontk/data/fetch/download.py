"""A resuming HTTP downloader for pooch.

A download is appended to ``NAME.part``; ``NAME.part.json`` records the version it belongs to.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.exceptions import InvalidURL, RequestException
from urllib3.exceptions import HTTPError

from lesiontk.data.fetch.archives import ProgressCallback, free_disk_bytes
from lesiontk.data.fetch.sources import LOOPBACK, check_url
from lesiontk.errors import DataError, MissingRequirementError, UsageError

logger = logging.getLogger(__name__)

HEADERS = {
    # Dataverse rejects the user agents of scripting tools.
    "User-Agent": "Mozilla/5.0 (compatible; lesiontk data fetch)",
    "Accept-Encoding": "identity",  # ranges and sizes refer to the file's own bytes
}
_CHUNK_BYTES = 1 << 20
_MAX_FILE_BYTES = 64 << 30
_MAX_REDIRECTS = 10
_MAX_WAIT = 120.0  # seconds
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class DownloadPolicy:
    """The retries of a download: tries per file, timeout in seconds, the sleep function."""

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


class TransferError(Exception):
    """A failed try: retry after `wait` seconds, or not at all if `final`."""

    def __init__(self, reason: str, wait: float | None = None, *, final: bool = False) -> None:
        super().__init__(reason)
        self.wait, self.final = wait, final


class _Session(requests.Session):
    """A session that follows redirects only to HTTPS, or from loopback to loopback."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.headers.update(HEADERS)
        self.max_redirects = _MAX_REDIRECTS
        self.trust_env = urlsplit(url).hostname not in LOOPBACK  # no proxy for loopback

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        location = super().get_redirect_target(resp)
        if location is not None:
            try:
                local = urlsplit(resp.url).hostname in LOOPBACK
                check_url(urljoin(resp.url, location), allow_http=local)
            except ValueError as error:
                raise DataError(
                    f"{resp.url} redirects to {location!r}, which is not allowed: {error}."
                ) from error
        return location


def part_of(path: Path) -> Path:
    """Return the path of the partial file."""
    return path.with_name(f"{path.name}.part")


def state_of(path: Path) -> Path:
    """Return the path of the record of a partial file's URL and version (ETag or date)."""
    return path.with_name(f"{path.name}.part.json")


@dataclass(frozen=True, slots=True)
class ResumingDownloader:
    """Downloads a file to ``NAME.part`` and moves it to where pooch verifies it.

    `path` is the file's final path, `bytes` its published size. A partial file without a validator
    is resumed only if the file is `verifiable` by a checksum.

    A call raises:
        DataError: the server does not have the file, or one of another size, or redirects to an
            address that is not HTTPS.
        MissingRequirementError: no connection, no whole file in `policy.tries`, or a full disk.
    """

    path: Path
    bytes: int | None
    verifiable: bool
    policy: DownloadPolicy
    progress: ProgressCallback

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        for attempt in range(1, self.policy.tries + 1):
            try:
                self._transfer(url)
                break
            except TransferError as error:
                logger.warning("%s: %s (try %d of %d)", url, error, attempt, self.policy.tries)
                if error.final or attempt == self.policy.tries:
                    raise MissingRequirementError(
                        f"{urlsplit(url).hostname} did not deliver {url} (try {attempt} of "
                        f"{self.policy.tries}: {error}); expected a network that reaches it. The "
                        f"partial file is kept; run the command again to resume."
                    ) from error
                wait = 2.0 ** (attempt - 1) if error.wait is None else error.wait
                if wait:
                    self.policy.sleep(min(wait, _MAX_WAIT))
        Path(output_file).unlink()
        try:
            Path(output_file).hardlink_to(part_of(self.path))  # the part survives a kill
        except OSError:  # a file system without links
            shutil.copyfile(part_of(self.path), output_file)

    def _transfer(self, url: str) -> None:
        offset, total, headers = self._resume(url)
        if offset and offset == total:
            return
        with _Session(url) as session, _open(session, url, headers, self.policy) as response:
            validator, length = _validator(response), response.headers.get("Content-Length", "")
            if response.status_code == 200:
                offset = 0  # no part exists, the server ignores ranges, or the file changed
                total = int(length) if length.isdecimal() else self.bytes
            elif offset and response.status_code in (206, 416):
                span = re.fullmatch(
                    r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", "")
                )
                changed = validator not in ("", headers.get("If-Range", validator))
                if span is None or int(span[1]) != offset or changed:
                    part_of(self.path).unlink()
                    raise TransferError(
                        f"{part_of(self.path).name} does not belong to the current version", 0
                    )
                total = int(span[2])
            else:
                _refuse_status(response, url)
            if self.bytes is not None and total != self.bytes:
                raise DataError(f"{url} has {total} bytes; expected {self.bytes}. Not downloaded.")
            folder = self.path.parent
            if total is not None and total - offset > (free := self.policy.free_bytes(folder)):
                raise MissingRequirementError(
                    f"{self.path.name} needs {total - offset} bytes more and {folder} has {free} "
                    f"free; make room or choose another folder."
                )
            state = {"url": url, "validator": validator, "total": total}
            state_of(self.path).write_text(json.dumps(state), encoding="utf-8")
            self._receive(response, offset, total)

    def _resume(self, url: str) -> tuple[int, int | None, dict[str, str]]:
        """Return the bytes present, the total, and the headers that request the rest.

        Without a validator (RFC 9110, 13.1.5) two versions of a file could be mixed: then a partial
        file is used only if a checksum would detect it.
        """
        try:
            offset = part_of(self.path).stat().st_size
            left = json.loads(state_of(self.path).read_text(encoding="utf-8"))
            validator, total = str(left["validator"]), left["total"]
            usable = left["url"] == url and (validator or self.verifiable)
        except (OSError, ValueError, KeyError, TypeError):
            return 0, None, {}
        if not offset or not usable:
            return 0, None, {}
        conditional = {"If-Range": validator} if validator else {}
        return offset, total, {"Range": f"bytes={offset}-", **conditional}

    def _receive(self, response: requests.Response, offset: int, total: int | None) -> None:
        done = shown = offset
        limit = _MAX_FILE_BYTES if total is None else total
        self.progress(f"download {self.path.name}", done, total)
        with part_of(self.path).open("ab" if offset else "wb") as out:
            while done < limit:
                try:
                    chunk = response.raw.read1(min(_CHUNK_BYTES, limit - done))
                except (OSError, HTTPError) as error:
                    of = "" if total is None else f" of {total}"
                    raise TransferError(f"broke off after {done}{of} bytes ({error})") from error
                if not chunk:
                    break
                out.write(chunk)
                done += len(chunk)
                if done == total or done - shown >= _CHUNK_BYTES:
                    shown = done
                    self.progress(f"download {self.path.name}", done, total)
        if total is not None and done < total:
            raise TransferError(f"broke off after {done} of {total} bytes")


def _validator(response: requests.Response) -> str:
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


@contextmanager
def _open(
    session: _Session, url: str, headers: dict[str, str], policy: DownloadPolicy
) -> Iterator[requests.Response]:
    """Return the response of any status, after permitted redirects."""
    try:
        response = session.get(url, headers=headers, timeout=policy.timeout, stream=True)
    except requests.TooManyRedirects as error:
        raise DataError(
            f"{url} has more than {_MAX_REDIRECTS} redirects; expected a file."
        ) from error
    except InvalidURL as error:
        raise DataError(f"{url} is not a URL ({error}); expected https:// and a host.") from error
    except (RequestException, OSError, HTTPError) as error:
        reason = _innermost(error)
        final = isinstance(reason, socket.gaierror | ssl.SSLCertVerificationError)
        text = f"{urlsplit(url).hostname} cannot be reached ({' '.join(str(reason).split())})"
        raise TransferError(text, final=final) from error
    with response:
        yield response


def _innermost(error: BaseException) -> BaseException:
    """Return the root cause: requests and urllib3 wrap it several times."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _refuse_status(response: requests.Response, url: str) -> Any:
    """Raise for a response whose status is not a success."""
    if response.status_code in _TRANSIENT:
        wait = response.headers.get("Retry-After", "")
        seconds = float(wait) if wait.isdecimal() else None
        raise TransferError(f"HTTP {response.status_code}", seconds)
    raise DataError(
        f"received HTTP {response.status_code} {response.reason} from {url}; expected the file. It "
        "may have moved, or the server requires a browser."
    )
