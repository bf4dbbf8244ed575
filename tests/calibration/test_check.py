"""A list passes a split only if all its images are training images; the offender is named."""

from __future__ import annotations

import pytest

from lesiontk.calibration.check import check_rows, table_from_rows
from lesiontk.errors import DataError, LeakageError

SPLIT = [
    {
        "image_id": f"I{number}",
        "group": f"L{number}",
        "subset": subset,
        "pixel_sha256": f"{number:02d}" * 32,
    }
    for number, subset in enumerate(["train"] * 6 + ["validation"] * 2 + ["test"] * 2)
]


def rows(*ids: str) -> list[dict[str, str]]:
    return [{"image_id": image_id} for image_id in ids]


def changed(image_id: str, **cells: str) -> list[dict[str, str]]:
    return [{**row, **cells} if row["image_id"] == image_id else row for row in SPLIT]


def test_training_images_pass() -> None:
    proof = check_rows(rows("I0", "I5"), table_from_rows(SPLIT))
    assert (proof.images, proof.disjoint_from) == (2, {"validation": 2, "test": 2})
    assert proof.pixels_compared
    assert proof.pixels_confirmed == 0


@pytest.mark.parametrize("image_id", ["I7", "I9"])
def test_an_image_of_another_side_is_named(image_id: str) -> None:
    with pytest.raises(LeakageError, match=f"share their image .*{image_id}"):
        check_rows(rows("I0", image_id), table_from_rows(SPLIT))


def test_a_shared_lesion_names_both_images() -> None:
    with pytest.raises(LeakageError, match=r"share their lesion .*I1 of the list and I8 of test"):
        check_rows(rows("I0", "I1"), table_from_rows(changed("I1", group="L8")))


def test_shared_pixels_name_both_images() -> None:
    with pytest.raises(LeakageError, match=r"share their pixels .*I1 of the list and I6 of valid"):
        check_rows(rows("I1"), table_from_rows(changed("I1", pixel_sha256="06" * 32)))


def test_an_image_that_the_split_lacks_is_named() -> None:
    with pytest.raises(DataError, match=r"not in the data: I77"):
        check_rows(rows("I0", "I77"), table_from_rows(SPLIT))


def test_an_image_of_no_known_side_is_named() -> None:
    with pytest.raises(LeakageError, match=r"I2 of the list is in the subset 'left out'"):
        check_rows(rows("I2"), table_from_rows(changed("I2", subset="left out")))


def test_pixels_that_changed_since_the_draw_are_named() -> None:
    listed = [{"image_id": "I0", "pixel_sha256": "00" * 32}]
    assert check_rows(listed, table_from_rows(SPLIT)).pixels_confirmed == 1
    with pytest.raises(DataError, match="I0 has other pixels than when the list was drawn"):
        check_rows([{"image_id": "I0", "pixel_sha256": "ab" * 32}], table_from_rows(SPLIT))


def test_a_split_without_hashes_says_that_pixels_were_not_compared() -> None:
    bare = [
        {"image_id": r["image_id"], "subset": r["subset"], "lesion_id": r["group"]} for r in SPLIT
    ]
    assert not check_rows(rows("I0"), table_from_rows(bare)).pixels_compared
    moved = table_from_rows(
        [{**r, "lesion_id": "L9"} if r["image_id"] == "I0" else r for r in bare]
    )
    with pytest.raises(LeakageError, match="share their lesion"):
        check_rows(rows("I0"), moved)


@pytest.mark.parametrize("table", [[], [{"image_id": "I0"}]])
def test_a_table_that_is_no_split_is_refused(table: list[dict[str, str]]) -> None:
    with pytest.raises(DataError, match="no columns image_id and subset"):
        table_from_rows(table)
