"""JSON of unknown origin: bounded in size and depth, with errors that name the file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from lesiontk.errors import DataError, shorten
from lesiontk.files.regular_file import read_regular

BYTES = 64_000_000
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str | bytes, what: str, *, finite: bool = True) -> Any:
    """Return the document of a JSON text; `what` names it in errors.

    Raises `DataError` for invalid JSON, for too deep nesting, for text that is not valid Unicode
    (lone surrogates) and, unless `finite` is False, for numbers that are not finite.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        document = json.loads(text, parse_constant=_refuse_constant if finite else None)
        if _SURROGATE.search(text):
            json.dumps(document, ensure_ascii=False).encode()
    except RecursionError as error:
        raise DataError(f"{what} is nested too deeply.") from error
    except (ValueError, TypeError) as error:  # broken JSON, broken UTF-8, numbers of any length
        raise DataError(f"{what} is not valid JSON: {shorten(str(error))}.") from error
    return document


def read_json(path: Path, what: str, *, limit: int = BYTES, finite: bool = True) -> Any:
    """Return the document of a JSON file of at most `limit` bytes.

    Raises `DataError` as `parse_json`, and if the path is not a regular file or is larger.
    """
    return parse_json(read_regular(path, what, limit=limit), f"{what} {path}", finite=finite)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a finite number")
