"""The server of a bundle, asked by a real client: every request gets its own answer or a reason."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lesiontk.data.synthetic.dataset import render_view
from lesiontk.data.tasks import load_task
from lesiontk.deploy.runner.access import Access, AccessError, read_access
from lesiontk.deploy.runner.metrics import Metrics
from lesiontk.deploy.runner.worker import Answer, BusyError, LateError, Worker
from tests.deploy.bundles import call_runner, change_contract, make_bundle, read_contract
from tests.deploy.serving import Server, serving

TOKEN = "a token of some length"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, and beside its page a file that the checksums do not list."""
    folder = make_bundle(
        tmp_path_factory.mktemp("bundle") / "b", "tflite_int8.tflite", "linux-x86-64"
    )
    (folder / "web" / "unlisted.html").write_text("not of the bundle")
    return folder


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Server]:
    with serving(bundle, "--timeout", "5", "--max-upload", "2") as started:
        yield started


def picture_bytes(label: str, number: int, kind: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(render_view(label, number, 0, 160)[:140]).save(stream, kind)
    return stream.getvalue()


PICTURES = {
    f"{label}_{number}": picture_bytes(label, number)
    for label in load_task("seven_class").labels
    for number in (1, 2)
}


@pytest.fixture(scope="module")
def expected(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``predict --json`` says of each picture."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for name, data in PICTURES.items():
        paths.append(folder / f"{name}.jpg")
        paths[-1].write_bytes(data)
    found = json.loads(call_runner(bundle, "predict", "--json", *map(str, paths)).stdout)
    return {
        name: {**found, "predictions": [{**entry, "image": "upload"}]}
        for name, entry in zip(PICTURES, found["predictions"], strict=True)
    }


def test_it_answers_what_predict_prints(server: Server, expected: dict[str, Any]) -> None:
    for name, data in PICTURES.items():
        reply = server.ask("/predict", data)
        assert (reply.status, json.loads(reply.body)) == (200, expected[name])


def test_health_metrics_and_the_page(server: Server, bundle: Path) -> None:
    engine = read_contract(bundle)["engine"]
    assert json.loads(server.ask("/health").body) == {
        "status": "ok",
        "precision": engine["precision"],
        "engine_sha256": engine["content_sha256"],
    }
    page = server.ask("/")
    assert page.body == (bundle / "web" / "index.html").read_bytes()
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert server.ask("/app.js").headers["content-type"].startswith("text/javascript")
    assert server.ask("/", method="HEAD").body == b""
    before = count(server, 'lesiontk_responses_total{code="200"}')
    server.ask("/predict", PICTURES["mel_1"])
    text = server.ask("/metrics").body.decode()
    assert 'le="+Inf"' in text
    assert "content_sha256=" in text
    assert count(server, 'lesiontk_responses_total{code="200"}') >= before + 2


def count(server: Server, name: str) -> float:
    lines = server.ask("/metrics").body.decode().splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)), 0.0)


@pytest.mark.parametrize(
    "path",
    [
        "/../run.py", "/%2e%2e/run.py", "/web/../../etc/passwd", "/unlisted.html", "//etc/passwd",
        "/app.js%00.html", "/..%5crun.py", "/SHA256SUMS", "/web/index.html", "/" + "a" * 5000,
    ],
)  # fmt: skip
def test_no_path_reaches_another_file(path: str, server: Server) -> None:
    reply = server.ask(path)
    assert reply.status == 404
    assert b"expected POST /predict" in reply.body


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 422, "received 0 bytes"),
        (b"text named .jpg", 422, "expected a complete JPEG"),
        (PICTURES["mel_1"][:-900], 422, "it is incomplete"),
        (PICTURES["mel_1"][:300], 422, "upload: received"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 900, 422, "upload: received"),
    ],
)
def test_what_is_no_picture_is_refused_with_the_reason(
    body: bytes, status: int, said: str, server: Server
) -> None:
    reply = server.ask("/predict", body)
    document = json.loads(reply.body)
    assert reply.status == status
    assert document["predictions"] == []
    assert said in document["failures"][0]["message"]


def test_a_picture_of_too_many_pixels_is_refused_by_its_header(server: Server) -> None:
    """Of 101 megapixels in 100 kB: it would take 300 MB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + checksum

    header = (10100).to_bytes(4, "big") + (10000).to_bytes(4, "big") + b"\x08\x02\0\0\0"
    rows = zlib.compress(bytes(10000 * (1 + 3 * 10100)), 1)
    body = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    before = server.memory_bytes()
    reply = server.ask("/predict", body)
    assert reply.status == 422
    message = json.loads(reply.body)["failures"][0]["message"]
    assert "10,100 x 10,000 pixels; expected at most 100,000,000" in message
    assert server.memory_bytes() < before + 50_000_000


def talk(server: Server, request: bytes, *, end: bool = True) -> bytes:
    """Return all that the server sends for a request of any form."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(request)
        if end:
            connection.shutdown(socket.SHUT_WR)
        parts = []
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "said"),
    [
        (HEAD + b"Content-Length: 1000\r\n\r\nhalf", b"400 Bad Request"),
        (HEAD + b"Content-Length: -5\r\n\r\n", b"400 Bad Request"),
        (HEAD + b"Content-Length: 1e3\r\n\r\n", b"400 Bad Request"),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 9\r\n\r\n", b"Content-Length is '5, 9'"),
        (
            b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n",
            b"without a body",
        ),
        (HEAD + b"Content-Length: 2000001\r\n\r\nhalf", b"413 Request Entity Too Large"),
        (HEAD + b"\r\n", b"411 Length Required"),
        (HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", b"411 Length"),
        (b"DELETE /predict HTTP/1.1\r\nHost: localhost\r\n\r\n", b"405 Method Not Allowed"),
        (b"POST /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"405 Method Not Allowed"),
        (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"403 Forbidden"),
        (b"GET /health HTTP/1.1\r\n\r\n", b"403 Forbidden"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n\r\n", b"403"),
        (b"nonsense\r\n\r\n", b"Bad request syntax"),
    ],
)
def test_a_request_of_wrong_form_is_refused(
    request_bytes: bytes, said: bytes, server: Server
) -> None:
    assert said in talk(server, request_bytes)
    assert server.ask("/health").status == 200


def test_a_body_where_none_belongs_is_not_taken_for_the_next_request(server: Server) -> None:
    hidden = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(hidden)
    assert talk(server, head + hidden).count(b"HTTP/1.1 ") == 1


def test_a_port_that_is_taken_is_named(server: Server, bundle: Path) -> None:
    ended = call_runner(bundle, "serve", "--listen", f"127.0.0.1:{server.port}")
    assert ended.returncode == 2
    assert f"cannot listen on 127.0.0.1, port {server.port}" in ended.stderr
    assert "--listen HOST:PORT" in ended.stderr


def test_an_upload_that_stalls_is_ended(bundle: Path) -> None:
    with serving(bundle, "--timeout", "0.5", "--queue", "1") as server:
        reply = talk(server, HEAD + b"Content-Length: 1000\r\n\r\nhalf", end=False)
        assert b"408 Request Timeout" in reply
        assert b"received 4 of 1000 bytes within 0.5 s" in reply
        assert server.ask("/predict", PICTURES["mel_1"]).status == 200  # its place is free again


def test_headers_that_come_slowly_are_ended(bundle: Path) -> None:
    """A byte now and then keeps no connection: the limit holds for all of the headers."""
    with serving(bundle, "--timeout", "0.5") as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=0.1) as slow:
            slow.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
            started = time.monotonic()
            while time.monotonic() - started < 10:
                try:
                    slow.sendall(b"x")
                    if slow.recv(1) == b"":
                        break
                except TimeoutError:
                    continue
                except OSError:
                    break
        assert time.monotonic() - started < 5
        assert server.ask("/predict", PICTURES["mel_1"]).status == 200


def test_a_full_queue_answers_503_at_once(bundle: Path) -> None:
    with (
        serving(bundle, "--queue", "1") as server,
        socket.create_connection(("127.0.0.1", server.port)) as slow,
    ):
        data = PICTURES["nv_1"]
        slow.sendall(HEAD + f"Content-Length: {len(data)}\r\n\r\n".encode() + data[:100])
        while (reply := server.ask("/predict", data)).status == 200:
            continue  # until the slow upload has taken the only place
        assert reply.status == 503
        assert reply.headers["retry-after"] == "1"
        slow.sendall(data[100:])
        assert b"200 OK" in slow.recv(1 << 16)
        while server.ask("/predict", data).status == 503:
            continue


def load(server: Server, expected: dict[str, Any], clients: int, requests: int) -> dict[int, int]:
    """Send requests from clients that keep their connection, and count answers by status.

    Each client sends its pictures in another order; a 503 is sent again, as Retry-After asks.
    """
    names = list(PICTURES)

    def work(client: int) -> dict[int, int]:
        seen: dict[int, int] = {}
        connection = HTTPConnection("127.0.0.1", server.port, timeout=120)
        for turn in range(requests // clients):
            name = names[(client + turn) % len(names)]
            while True:
                connection.request("POST", "/predict", PICTURES[name])
                reply = connection.getresponse()
                document = json.loads(reply.read())
                seen[reply.status] = seen.get(reply.status, 0) + 1
                if reply.status != 503:
                    break
            assert (reply.status, document) == (200, expected[name]), name
        connection.close()
        return seen

    total: dict[int, int] = {}
    with ThreadPoolExecutor(clients) as pool:
        for seen in pool.map(work, range(clients)):
            for status, number in seen.items():
                total[status] = total.get(status, 0) + number
    return total


def test_ten_clients_at_once_get_their_own_answers(bundle: Path, expected: dict[str, Any]) -> None:
    with serving(bundle, "--queue", "4") as server:
        seen = load(server, expected, clients=10, requests=200)
        assert seen[200] == 200
        assert set(seen) <= {200, 503}


@pytest.mark.slow
def test_32_clients_and_10_000_requests(bundle: Path, expected: dict[str, Any]) -> None:
    """No answer is wrong or lost, and memory does not grow after the first tenth."""
    with serving(bundle, "--queue", "16") as server:
        seen = load(server, expected, clients=32, requests=992)
        before = server.memory_bytes()
        more = load(server, expected, clients=32, requests=9_024)
        after = server.memory_bytes()
        assert seen[200] + more[200] >= 10_000
        assert set(seen) | set(more) <= {200, 503}
        assert after < before + 8_000_000, (before, after)


# ----------------------------------------------------------------------- token


def test_elsewhere_a_token_is_required(bundle: Path, tmp_path: Path) -> None:
    done = call_runner(bundle, "serve", "--listen", "0.0.0.0:0")
    assert done.returncode == 2
    assert "0.0.0.0 can be reached by other machines, and there is no token" in done.stderr
    (tmp_path / "token").write_text("short\n")
    done = call_runner(bundle, "serve", "--token-file", str(tmp_path / "token"))
    assert "the token has 5 characters; expected at least 16" in done.stderr
    with serving(bundle, "--listen", "0.0.0.0:0", token=TOKEN) as server:
        refused = server.ask("/predict", PICTURES["mel_1"])
        assert refused.status == 401
        assert refused.headers["www-authenticate"].startswith("Basic ")
        assert server.ask("/").status == server.ask("/metrics").status == 401
        assert server.ask("/health").status == 200
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert server.ask("/predict", PICTURES["mel_1"], bearer).status == 200
        assert server.ask("/", headers=basic(f"any:{TOKEN}")).status == 200


def basic(pair: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def test_what_is_not_the_token_opens_nothing() -> None:
    access = Access("0.0.0.0", 80, TOKEN)
    good = [f"Bearer {TOKEN}", f"bearer {TOKEN}", basic(f"x:{TOKEN}")["Authorization"]]
    bad = [
        None,
        "",
        TOKEN,
        f"Bearer {TOKEN}x",
        "Bearer ",
        "Basic !",
        "Basic /w==",
        f"Digest {TOKEN}",
    ]
    assert all(access.allows(text) for text in good)
    assert not any(access.allows(text) for text in [*bad, basic(f"{TOKEN}:")["Authorization"]])


@pytest.mark.parametrize("listen", ["8080", "localhost", "localhost:http", "localhost:99999", ":1"])
def test_an_address_of_wrong_form_is_refused(listen: str) -> None:
    with pytest.raises(AccessError, match="expected HOST:PORT"):
        read_access(listen, None)


def test_loopback_is_known_by_its_addresses() -> None:
    assert read_access("[::1]:80", None).loopback
    assert read_access("127.0.0.2:80", None).loopback
    with pytest.raises(AccessError, match="can be reached by other machines"):
        read_access("[::]:80", None)


# ---------------------------------------------------------------------- worker


def make_worker(answer: Answer, slots: int = 2) -> Worker:
    @contextmanager
    def opened() -> Iterator[Answer]:
        yield answer

    open_engine: Any = opened
    return Worker(open_engine, slots)


def test_the_engine_is_opened_and_asked_in_one_thread() -> None:
    """A CUDA context belongs to the thread that made it."""
    threads = []

    @contextmanager
    def opened() -> Iterator[Answer]:
        threads.append(threading.get_ident())

        def answer(data: bytes) -> dict[str, Any]:
            threads.append(threading.get_ident())
            return {"said": data}

        yield answer
        threads.append(threading.get_ident())

    worker = Worker(opened, 1)
    assert worker.run(b"x", 10).answer == {"said": b"x"}
    worker.close()
    assert len(threads) == 3
    assert len({*threads, threading.get_ident()}) == 2


def test_a_fault_in_opening_is_raised_where_the_worker_is_made() -> None:
    def broken() -> AbstractContextManager[Answer]:
        raise ValueError("no GPU")

    with pytest.raises(ValueError, match="no GPU"):
        Worker(broken, 1)


def test_an_error_of_one_job_does_not_end_the_others() -> None:
    worker = make_worker(lambda data: {"n": 1 // len(data)})
    with pytest.raises(ZeroDivisionError):
        worker.run(b"", 10)
    assert worker.run(b"x", 10).answer == {"n": 1}
    worker.close()


def test_a_late_job_is_given_up_and_not_begun() -> None:
    began: list[bytes] = []
    gate = threading.Event()

    def answer(data: bytes) -> dict[str, Any]:
        began.append(data)
        assert gate.wait(30)
        return {}

    worker = make_worker(answer)
    with pytest.raises(LateError):
        worker.run(b"first", 0.01)
    with pytest.raises(LateError):
        worker.run(b"second", 0.01)
    gate.set()
    assert worker.run(b"third", 30).answer == {}
    assert began == [b"first", b"third"]
    worker.close()


def test_slots_are_taken_and_given_back() -> None:
    worker = make_worker(lambda data: {}, slots=1)
    with worker.slot(), pytest.raises(BusyError):
        worker.slot()
    with worker.slot():
        pass
    worker.close()
    with pytest.raises(BusyError):
        worker.slot()


def test_latency_does_not_follow_the_time_of_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", iter([1e9, 0.0] * 50).__next__)  # an hour back, each time
    worker = make_worker(lambda data: {})
    assert 0 <= worker.run(b"x", 10).seconds < 10
    worker.close()


def test_a_machine_that_answers_otherwise_serves_nothing(bundle: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    golden = {**read_contract(copy)["golden"], "max_mean_drift": -1.0}
    change_contract(copy, {"golden": golden})
    done = call_runner(copy, "serve", "--listen", "127.0.0.1:0")
    assert done.returncode == 1
    assert "answers not as expected on this machine, so no image is classified" in done.stderr


def test_a_flipped_byte_serves_nothing(bundle: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    content = bytearray((copy / "web" / "app.js").read_bytes())
    content[0] ^= 1
    (copy / "web" / "app.js").write_bytes(content)
    done = call_runner(copy, "serve", "--listen", "127.0.0.1:0")
    assert done.returncode == 2
    assert "web/app.js was changed" in done.stderr


def test_the_counts_are_in_prometheus_form() -> None:
    metrics = Metrics({"bundle": 'a "name"\n'})
    metrics.count_response(200)
    metrics.count_prediction("mel", 0.015)
    lines = metrics.render(3).splitlines()
    assert 'lesiontk_info{bundle="a \\"name\\"\\n"} 1' in lines
    assert 'lesiontk_responses_total{code="200"} 1' in lines
    assert 'lesiontk_predictions_total{label="mel"} 1' in lines
    assert 'lesiontk_predict_seconds_bucket{le="0.01"} 0' in lines
    assert 'lesiontk_predict_seconds_bucket{le="0.02"} 1' in lines
    assert "lesiontk_predict_seconds_sum 0.015" in lines
    assert "lesiontk_waiting 3" in lines
