"""An engine's threshold, temperature and figures, written into its file.

They are added when an engine leaves the workspace, because evaluation follows conversion. The
original bytes are unchanged, and the record contains their SHA-256. `open_engine` reads it.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from lesiontk.backends import find_backend
from lesiontk.evaluate.assessment import Assessment
from lesiontk.files.whole_files import write_whole


def stamp(path: Path, assessment: Assessment, out: Path) -> Assessment:
    """Return the assessment as written to the engine file `out`, with the hash of `path`.

    `out` is a copy of `path`, and may be `path`; an older assessment in it is replaced.
    """
    backend = find_backend(path)()
    content, _ = backend.split_record(path.read_bytes())
    made = replace(assessment, content=hashlib.sha256(content).hexdigest())
    write_whole({out: backend.add_record(content, made.dump())})
    return made
