"""The peak of this machine, measured: operations per second by type, and memory bandwidth.

Run as ``python -m lesiontk.bench.peak THREADS``; prints a `Peak` as JSON. Matrix products run in
ONNX Runtime; the best of some repetitions counts, because what else the machine does can only slow
them. A measured peak is a lower bound of the true one: kernels for larger blocks or other
instructions may exceed it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from lesiontk.bench.exit_code import exit_as_lesiontk
from lesiontk.document import Record

SIZE = 768
"""Rows and columns of the matrices: three of float32 take 7 MB."""
SECONDS = 0.5
"""How long each product is repeated."""
COPY_BYTES = 2**27
"""The size of the array that is copied, beyond most caches, shared among the threads."""
METHOD = (
    f"best of the products of {SIZE}x{SIZE} matrices in ONNX Runtime, float32 and uint8 by int8, "
    "and of copies of 128 MiB in NumPy"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak(Record):
    """10^9 operations per second (two for a multiply-accumulate) of float32 and int8 products on
    `threads` threads, and 10^9 bytes per second that a copy reads and writes."""

    threads: int
    float32_gops: float
    int8_gops: float
    bandwidth_gbs: float
    method: str = METHOD

    def find_gops(self, *, integer: bool) -> float:
        """Return the peak of int8 or of float32 operations."""
        return self.int8_gops if integer else self.float32_gops

    def find_roof(self, intensity: float, *, integer: bool) -> float:
        """Return the attainable 10^9 operations per second at operations per byte (Williams,
        Waterman & Patterson, Roofline, 2009)."""
        return min(self.find_gops(integer=integer), self.bandwidth_gbs * intensity)


def measure_peak(threads: int) -> Peak:
    """Return the peak of this machine on `threads` threads."""
    work = 2e-9 * SIZE**3
    return Peak(
        threads=threads,
        float32_gops=work / _best_seconds(_product("MatMul", np.float32, threads)),
        int8_gops=work / _best_seconds(_product("MatMulInteger", np.uint8, threads)),
        bandwidth_gbs=_measure_bandwidth(threads),
    )


def _best_seconds(run: Callable[[], Any]) -> float:
    run()
    best, start = float("inf"), time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        begin = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - begin)
    return best


def _product(kind: str, dtype: type[np.generic], threads: int) -> Callable[[], Any]:
    """Return the call that multiplies an activation by a constant matrix."""
    import onnx
    from onnx import helper, numpy_helper

    from lesiontk.backends.onnx.backend import make_session

    generator = np.random.default_rng(0)
    integer = dtype is np.uint8
    left = generator.integers(0, 255, (SIZE, SIZE)).astype(dtype)
    right = generator.integers(-64, 64, (SIZE, SIZE)).astype(np.int8 if integer else dtype)
    types = onnx.TensorProto
    graph = helper.make_graph(
        [helper.make_node(kind, ["left", "right"], ["product"])],
        "product",
        [helper.make_tensor_value_info("left", types.UINT8 if integer else types.FLOAT,
                                       [SIZE, SIZE])],
        [helper.make_tensor_value_info("product", types.INT32 if integer else types.FLOAT,
                                       [SIZE, SIZE])],
        [numpy_helper.from_array(right, "right")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = make_session(model.SerializeToString(), threads)
    return lambda: session.run(None, {"left": left})


def _measure_bandwidth(threads: int) -> float:
    """Return 10^9 bytes per second, read and written, of copies by `threads` threads."""
    parts = np.array_split(np.ones(COPY_BYTES, np.uint8), threads)
    copies = [part.copy() for part in parts]
    with ThreadPoolExecutor(threads) as pool:
        seconds = _best_seconds(lambda: list(pool.map(np.copyto, copies, parts)))
    return 2e-9 * COPY_BYTES / seconds


if __name__ == "__main__":
    with exit_as_lesiontk():
        sys.stdout.write(json.dumps(measure_peak(int(sys.argv[1])).to_document()) + "\n")
