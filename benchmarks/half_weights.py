"""A Keras file with its weights rounded to half precision: half as large, for training further.

The layers stay float32: the last 13 bits of a weight are zeros, which deflate. An assessment is of
the exact weights, and is left out.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import h5py
import numpy as np

WEIGHTS = "model.weights.h5"


def round_weights(source: Path, to: Path) -> None:
    """Write the ``.keras`` file `source` with rounded weights to `to`.

    Raises `ValueError` for a weight that half precision cannot hold.
    """
    with (
        zipfile.ZipFile(source) as archive,
        zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as written,
    ):
        for name in archive.namelist():
            content = archive.read(name)
            if name == WEIGHTS:
                content = round_datasets(content)
            # a fixed date: the same network gives the same file
            written.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED, 9)


def round_datasets(content: bytes) -> bytes:
    """Return the HDF5 file with every float32 number rounded to half precision."""
    stream = io.BytesIO(content)
    with h5py.File(stream, "r+") as file:

        def round_one(name: str, found: object) -> None:
            if not isinstance(found, h5py.Dataset) or found.dtype != np.float32:
                return
            values = found[()]
            with np.errstate(over="ignore"):
                rounded = values.astype(np.float16).astype(np.float32)
            if not np.isfinite(rounded).all():
                raise ValueError(
                    f"{name} has values up to {abs(values).max():.3g}; expected < 65520"
                )
            found[()] = rounded

        file.visititems(round_one)
    return stream.getvalue()
