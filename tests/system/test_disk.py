"""A full disk is reported with figures and kills no process."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lesiontk.data.images import create_array
from lesiontk.errors import MissingRequirementError
from lesiontk.stage import Context
from lesiontk.store import Store
from lesiontk.system.disk import explain_disk_error
from tests.fake_stages import TextConfig, TextStage

LIMITED = """
import resource, sys
from pathlib import Path
from lesiontk.data.images import create_array
from lesiontk.errors import MissingRequirementError
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
array = create_array(Path(sys.argv[1]) / "small.npy", (10, 16, 16, 3))
array[:] = 7
try:
    create_array(Path(sys.argv[1]) / "images.npy", (1000, 64, 64, 3))[:] = 7
except MissingRequirementError as error:
    print(error)
"""


def test_an_array_is_that_of_numpy(tmp_path: Path) -> None:
    array = create_array(tmp_path / "ours.npy", (5, 16, 16, 3))
    array[3] = 9
    array.flush()
    other = np.lib.format.open_memmap(tmp_path / "theirs.npy", "w+", np.uint8, (5, 16, 16, 3))
    other[3] = 9
    other.flush()
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "theirs.npy").read_bytes()
    np.testing.assert_array_equal(np.load(tmp_path / "ours.npy"), other)


def test_the_space_is_reserved_before_anything_is_mapped(tmp_path: Path) -> None:
    """A sparse file would be as long, and hold no block."""
    create_array(tmp_path / "images.npy", (100, 64, 64, 3))
    status = (tmp_path / "images.npy").stat()
    assert status.st_blocks * 512 >= status.st_size > 100 * 64 * 64 * 3


def test_a_disk_that_is_too_small_is_an_error_and_no_signal(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "images.npy needs 12.3 MB in" in ended.stdout
    assert "MB are free" in ended.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_is_reported_with_the_bytes_needed_and_free(tmp_path: Path) -> None:
    call = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)]
    if subprocess.run(call, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs may be mounted here")
    try:
        with pytest.raises(
            MissingRequirementError, match=r"needs 12\.3 MB .* is full: 2\.1 MB are"
        ):
            create_array(tmp_path / "images.npy", (1000, 64, 64, 3))
        (tmp_path / "images.npy").unlink()

        def fill(context: Context) -> None:
            (context.directory / "large").write_bytes(bytes(3_000_000))

        store = Store(tmp_path / "workspace")
        with pytest.raises(
            MissingRequirementError, match=r"the disk of .* is full: .* MB are free"
        ):
            store.build(TextStage(fill), TextConfig(), {})

        def reserve(context: Context) -> None:
            create_array(context.directory / "images.npy", (1000, 64, 64, 3))

        with pytest.raises(MissingRequirementError, match=r"needs 12\.3 MB"):
            store.build(TextStage(reserve), TextConfig(), {})
        assert store.failures() == []  # nothing is left that takes space
        assert store.build(TextStage(), TextConfig(), {}).path.is_dir()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize(
    ("error", "reported"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "your quota is used up"),
        (OSError(errno.EROFS, "Read-only file system", "/nowhere/x"), "the disk of / is read-only"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/proc/self/x", None, "/nowhere/x"),
            "the disk of / is full",  # of a copy, its target
        ),
        (OSError(errno.EFBIG, "File too large"), "does not support files of this size"),
        (RuntimeError("Writing file failed: No space left on device; weights.index"), "is full"),
        (OSError("Can't write (errno = 28, error message = 'No space left on device')"), "is full"),
        (ZeroDivisionError("division by zero"), None),
        (OSError(errno.EACCES, "Permission denied"), None),
    ],
)
def test_what_the_disk_lacks_is_known_from_any_library(
    tmp_path: Path, error: Exception, reported: str | None
) -> None:
    for raised in (error, wrap(error)):
        lack = explain_disk_error(raised, tmp_path)
        assert (lack is None) == (reported is None)
        assert reported is None or reported in str(lack)


def wrap(cause: Exception) -> Exception:
    error = ValueError("the library failed")
    error.__cause__ = cause
    return error


def test_a_workspace_removed_while_in_use_is_reported(store: Store) -> None:
    def remove(context: Context) -> None:
        for folder, _, names in os.walk(store.workspace, topdown=False):
            for name in names:
                (Path(folder) / name).unlink()
            Path(folder).rmdir()

    with pytest.raises(MissingRequirementError, match="was removed or moved while it was in use"):
        store.build(TextStage(remove), TextConfig(), {})
    assert store.build(TextStage(), TextConfig(), {}).facts["letters"] == 9
