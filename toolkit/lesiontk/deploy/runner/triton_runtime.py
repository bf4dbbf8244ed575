"""Ask a Triton Inference Server that serves the bundle's model. Needs NumPy.

The protocol is KServe's "open inference protocol" over HTTP with Triton's extension for binary
tensors.
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from lesiontk.deploy.runner.documents import EngineDescription

VARIABLE, DEFAULT = "LESIONTK_TRITON_URL", "http://127.0.0.1:8000"
HEADER = "Inference-Header-Content-Length"
TIMEOUT_S = 60


class MissingRequirementError(Exception):
    """No server answers, or it does not serve the model."""

    exit_code = 3


class ServerError(Exception):
    """The server's answer is an error, or not what was asked for."""

    exit_code = 2


@dataclass(frozen=True)
class ServedModel:
    """The part ``triton`` of ``bundle.json``: a model and its outputs, the probabilities first."""

    model: str
    outputs: Sequence[str]


class Engine:
    """uint8 [N, S, S, 3] in, float32 [N, C] out, one image a request."""

    def __init__(self, url: str, served: ServedModel) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ServerError(
                f"{VARIABLE} is {url!r} ({error}); expected such as {DEFAULT}"
            ) from error
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        if parts.scheme not in kinds or not parts.hostname or parts.path not in ("", "/"):
            raise ServerError(f"{VARIABLE} is {url!r}; expected such as {DEFAULT}")
        self._url, self._model, self._outputs = url, served.model, served.outputs
        self._connection = kinds[parts.scheme](parts.hostname, port, timeout=TIMEOUT_S)
        self._last: list[Any] = []
        status, _, _ = self._ask("GET", f"/v2/models/{served.model}/ready")
        if status != 200:
            raise MissingRequirementError(
                f"Triton at {url} does not serve {served.model} (HTTP {status}): start it with the "
                "bundle's folder model_repository, as README.md says"
            )
        server = json.loads(self._ask("GET", "/v2")[2])
        self.description: EngineDescription = {
            "runtime": str(server.get("name", "triton")),
            "version": str(server.get("version", "of unknown version")),
            "url": url,
            "model": served.model,
        }

    def predict(self, images: Any) -> Any:
        """Return probabilities float32 [N, C]."""
        probabilities = []
        for image in images:
            self._last = self._infer(np.ascontiguousarray(image[np.newaxis], np.uint8))
            probabilities.append(self._last[0])
        return np.stack(probabilities)

    def read_signals(self) -> list[Any]:
        """Return the last image's outputs, float32: probabilities, features and logits."""
        return self._last

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _infer(self, image: Any) -> list[Any]:
        request = {
            "inputs": [
                {
                    "name": "image",
                    "shape": list(image.shape),
                    "datatype": "UINT8",
                    "parameters": {"binary_data_size": image.nbytes},
                }
            ],
            "outputs": [
                {"name": name, "parameters": {"binary_data": True}} for name in self._outputs
            ],
        }
        header = json.dumps(request).encode()
        status, length, body = self._ask(
            "POST", f"/v2/models/{self._model}/infer", header + image.tobytes(), len(header)
        )
        if status != 200:
            raise ServerError(f"Triton at {self._url}: {body[:500].decode(errors='replace')}")
        try:
            return self._read_outputs(json.loads(body[:length]), body[length:])
        except (ValueError, KeyError, TypeError) as error:
            raise ServerError(
                f"Triton at {self._url} returns outputs that cannot be read: {error}; expected "
                f"float32 {', '.join(self._outputs)} as binary data"
            ) from error

    def _read_outputs(self, document: Any, content: bytes) -> list[Any]:
        """Return each output as float32 [K], in the order of `outputs`."""
        found = {}
        for entry in document["outputs"]:
            size = int(entry["parameters"]["binary_data_size"])
            if entry["datatype"] != "FP32" or len(content) < size:
                raise ValueError(f"{entry['name']} is {entry['datatype']} of {size} bytes")
            found[entry["name"]] = np.frombuffer(content[:size], "<f4").copy()
            content = content[size:]
        return [found[name] for name in self._outputs]

    def _ask(
        self, method: str, path: str, body: bytes | None = None, header: int | None = None
    ) -> tuple[int, int, bytes]:
        """Return the status, the length of the JSON part of the body, and the body."""
        headers = {} if header is None else {HEADER: str(header)}
        if body is not None:
            headers["Content-Type"] = "application/octet-stream"
        for attempt in (1, 2):  # a server closes connections that were idle
            try:
                self._connection.request(method, path, body, headers)
                reply = self._connection.getresponse()
                content = reply.read()
                break
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                if attempt == 2 or isinstance(error, ConnectionRefusedError):
                    raise MissingRequirementError(
                        f"no Triton server answers at {self._url} ({error}): start it as README.md "
                        f"says, or set {VARIABLE}"
                    ) from error
        length = reply.getheader(HEADER)
        return reply.status, len(content) if length is None else int(length), content


def open_engine(engine: Path, bundle: Mapping[str, Any], threads: int) -> Engine:
    """Return the model on the server of a ``bundle.json``; the file and `threads` are its own."""
    return Engine(os.environ.get(VARIABLE, DEFAULT), ServedModel(**bundle["triton"]))
