"""An engine's threshold, temperature and figures, written into its file.

They are added when an engine leaves the workspace, for an evaluation comes after the conversion.
What was there before is not changed, and the record names its SHA-256. `open_engine` reads it.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from lesiontk.backends import find_backend
from lesiontk.evaluate.assessment import Assessment
from lesiontk.files.whole_files import write_whole


def stamp(path: Path, assessment: Assessment, out: Path) -> Assessment:
    """Write the engine file `path` as `out` with its assessment inside, in the place of an older.

    `out` may be `path`. Returns the assessment as written, with the file's hash.
    """
    backend = find_backend(path)()
    content, _ = backend.split_record(path.read_bytes())
    made = replace(assessment, content=hashlib.sha256(content).hexdigest())
    write_whole({out: backend.add_record(content, made.dump())})
    return made
