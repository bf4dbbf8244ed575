"""A server with Triton's HTTP protocol, as far as a client needs it, that runs an ONNX file."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

HEADER = "Inference-Header-Content-Length"
Change = Callable[[dict[str, Any], bytes], tuple[dict[str, Any], bytes]]


@contextmanager
def serving_model(path: Path, model: str, change: Change | None = None) -> Iterator[str]:
    """Serve the model and yield the server's URL; `change` alters an answer before it is sent."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16

        def do_GET(self) -> None:
            known = {
                "/v2": {"name": "triton", "version": "2.60.0"},
                f"/v2/models/{model}/ready": {},
            }
            found = self.path in known
            self.reply(200 if found else 400, json.dumps(known.get(self.path, {})).encode())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path != f"/v2/models/{model}/infer":
                self.reply(400, json.dumps({"error": "unknown model"}).encode())
                return
            length = int(self.headers[HEADER])
            asked = json.loads(body[:length])
            (image,) = asked["inputs"]
            assert image["parameters"]["binary_data_size"] == len(body) - length
            pixels = np.frombuffer(body[length:], np.uint8).reshape(image["shape"])
            names = [entry["name"] for entry in asked["outputs"]]
            values = session.run(names, {image["name"]: pixels})
            document = {
                "model_name": model,
                "outputs": [
                    {
                        "name": name,
                        "datatype": "FP32",
                        "shape": list(value.shape),
                        "parameters": {"binary_data_size": value.nbytes},
                    }
                    for name, value in zip(names, values, strict=True)
                ],
            }
            content = b"".join(value.astype("<f4").tobytes() for value in values)
            if change is not None:
                document, content = change(document, content)
            header = json.dumps(document).encode()
            self.reply(200, header + content, len(header))

        def reply(self, status: int, body: bytes, length: int | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if length is not None:
                self.send_header(HEADER, str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
