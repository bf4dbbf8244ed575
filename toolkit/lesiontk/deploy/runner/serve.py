"""``run.py serve``: predictions over HTTP, and the bundle's page if it has one."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lesiontk.deploy.runner.access import VARIABLE, read_access
from lesiontk.deploy.runner.classifier import Classifier, answer, import_picture
from lesiontk.deploy.runner.command import Call, Outcome, positive, seconds
from lesiontk.deploy.runner.contract import Bundle
from lesiontk.deploy.runner.documents import Answers
from lesiontk.deploy.runner.engine_choice import open_classifier
from lesiontk.deploy.runner.http_server import BundleServer, Limits, Page
from lesiontk.deploy.runner.integrity import FileCheck
from lesiontk.deploy.runner.metrics import Metrics
from lesiontk.deploy.runner.self_test import require_expected_outputs
from lesiontk.deploy.runner.worker import Answer, Worker

HELP = "answer over HTTP, on this machine alone unless --listen says otherwise"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json; charset=utf-8",
    ".webmanifest": "application/manifest+json; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".wasm": "application/wasm",
}
UPLOAD = "upload"
"""How answers call the image, whatever the client calls it."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    parser.add_argument(
        "--listen",
        default="127.0.0.1:8080",
        metavar="HOST:PORT",
        help="0.0.0.0:8080 for other machines; default 127.0.0.1:8080",
    )
    parser.add_argument(
        "--token-file", type=Path, help=f"the token that requests require; default ${VARIABLE}"
    )
    parser.add_argument("--queue", type=positive, default=16, help="images accepted at once")
    parser.add_argument("--max-upload", type=positive, default=20, metavar="MB")
    parser.add_argument("--timeout", type=seconds, default=30.0, metavar="SECONDS")


def run(call: Call) -> Outcome:
    """Serve until SIGTERM or SIGINT; images that were accepted are answered first."""
    call.require_files()
    bundle, options = call.bundle, call.options
    access = read_access(options.listen, options.token_file)
    import_picture()
    served: dict[str, str] = {}
    worker = Worker(lambda: open_answer(call, served), options.queue)
    metrics = Metrics(
        {
            "bundle": bundle.name,
            "bundle_sha256": call.files.sums_sha256,
            "content_sha256": served["engine_sha256"],
        }
    )
    limits = Limits(options.max_upload * 1_000_000, options.timeout)
    pages = load_pages(bundle, call.files)
    with BundleServer(access, worker, metrics, limits, pages, served) as web:
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        threading.Thread(target=web.serve_forever, daemon=True).start()
        host = f"[{access.host}]" if ":" in access.host else access.host
        sys.stderr.write(f"{bundle.name}: http://{host}:{web.server_address[1]}/\n")
        sys.stderr.flush()
        stop.wait()
        web.shutdown()
        worker.close()
        web.wait_until_answered()
    return Outcome({"bundle": bundle.name, "stopped": True}, "stopped")


@contextmanager
def open_answer(call: Call, served: dict[str, str]) -> Iterator[Answer]:
    """Open and test the engine, say in `served` which it is, and yield the function that answers
    with it."""
    options = call.options
    with open_classifier(call.bundle, options.runtime, options.threads) as classifier:
        require_expected_outputs(classifier, call.files)
        served["precision"] = classifier.bundle.precision
        served["engine_sha256"] = classifier.bundle.content_sha256
        if "choice" in classifier.description:
            served["kept_because"] = classifier.description["choice"]["reason"]
        yield lambda data: predict_bytes(classifier, data)


def predict_bytes(classifier: Classifier, data: bytes) -> Answers:
    """Return the document that ``predict --json`` prints for one image."""
    try:
        found = classifier.classify_bytes(data, UPLOAD)
    except import_picture().PictureError as error:
        return answer(classifier.bundle, [], [{"image": UPLOAD, "message": str(error)}])
    return answer(classifier.bundle, [found], [])


def load_pages(bundle: Bundle, files: FileCheck) -> dict[str, Page]:
    """Return the listed files of the folder ``web`` by their path, ``/`` for its index."""
    pages = {}
    for name in files.listed:
        if name.startswith("web/"):
            kind = KINDS.get(Path(name).suffix, "application/octet-stream")
            pages[name[len("web") :]] = Page((bundle.folder / name).read_bytes(), kind)
    if "/index.html" in pages:
        pages["/"] = pages["/index.html"]
    return pages
