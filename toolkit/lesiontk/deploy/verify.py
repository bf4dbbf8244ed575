"""Verification of a bundle's folder, on any machine with lesiontk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lesiontk.deploy.runner.integrity import check_files, hash_file
from lesiontk.deploy.runner.run import DamagedError, read_checksums
from lesiontk.deploy.signing import SIGNATURE, SUMS, verify_sums
from lesiontk.document import Record
from lesiontk.errors import DataError, GateFailedError


@dataclass(frozen=True, slots=True)
class VerifiedBundle(Record):
    """A folder whose `files` are all listed and intact.

    `sums_sha256` identifies the bundle; `signed_by` is the key's file, None if none was asked for.
    """

    folder: str
    files: int
    sums_sha256: str
    signed_by: str | None


def verify_bundle(folder: Path, key: Path | None = None) -> VerifiedBundle:
    """Check every file of a bundle, and with a public `key` its signature.

    Raises `GateFailedError` for files that are changed, missing, not listed or links, `DataError`
    for a bundle that is not signed with the key.
    """
    try:
        listed = read_checksums(folder)
    except DamagedError as error:
        raise DataError(f"{folder}: {error}") from error
    if key is not None:
        verify_sums(folder, key)
    faults = list(check_files(folder, listed).damaged)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            faults.append(f"{name} is a link, a pipe or a device; expected a regular file")
        elif path.is_file() and name not in {*listed, SUMS, SIGNATURE}:
            faults.append(f"{name} is not listed in {SUMS}")
    if faults:
        faults = list(dict.fromkeys(faults))
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise GateFailedError(
            f"{folder}: {'; '.join(faults[:3])}{more}. Do not use the bundle: copy it again."
        )
    return VerifiedBundle(
        str(folder), len(listed), hash_file(folder / SUMS), None if key is None else key.name
    )
