"""Dealing lesions to training, validation and test; plain Python, no framework."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lesiontk.errors import DataError, LeakageError
from lesiontk.records import SIDES


@dataclass(frozen=True, slots=True)
class SplitItem:
    """One image to be dealt: `lesion_id` may be unknown, `pixels` is the hash of its pixels.

    `diagnosis` is what the source says, which a task's `label` may sum up with others.
    """

    image_id: str
    lesion_id: str | None
    label: str
    pixels: str
    diagnosis: str = ""


_Key = Callable[[SplitItem], str | None]


def group_images(items: Sequence[SplitItem]) -> dict[str, str]:
    """Return image id -> group: images of one lesion, or with identical pixels, share a group.

    An image without a lesion id is a lesion of its own. The group is named after its first image.
    """
    parent = {item.image_id: item.image_id for item in items}

    def find(image: str) -> str:
        while parent[image] != image:
            parent[image] = parent[parent[image]]
            image = parent[image]
        return image

    keys: tuple[_Key, ...] = (lambda item: item.lesion_id, lambda item: item.pixels)
    for key in keys:
        first: dict[str, str] = {}
        for item in items:
            name = key(item)
            if not name:
                continue
            if name in first:
                low, high = sorted((find(first[name]), find(item.image_id)))
                parent[high] = low
            else:
                first[name] = item.image_id
    return {item.image_id: find(item.image_id) for item in items}


def split_by_group(
    items: Sequence[SplitItem], *, test: float, validation: float, seed: int, leaky: bool = False
) -> dict[str, str]:
    """Return image id -> side, stratified by diagnosis; no group is ever cut.

    It goes by diagnosis, not by label, so that two tasks over the same images have the same sides.
    In each diagnosis the groups come in an order drawn from `seed`, and each goes to the side that
    is furthest below its share of the diagnosis's images. Raises `DataError` if a label has fewer
    than three groups, for then a side would lack it. With `leaky` each image is a group of its own.
    """
    groups = {item.image_id: item.image_id for item in items} if leaky else group_images(items)
    members: dict[str, list[SplitItem]] = defaultdict(list)
    for item in items:
        members[groups[item.image_id]].append(item)
    strata = _stratify(members)
    shares = {"train": 1.0 - test - validation, "validation": validation, "test": test}
    side_of: dict[str, str] = {}
    for stratum in sorted(strata):
        names = sorted(strata[stratum])
        order = np.random.default_rng([seed, *hashlib.sha256(stratum.encode()).digest()[:4]])
        order.shuffle(names)
        total = sum(len(members[name]) for name in names)
        filled: Counter[str] = Counter()
        # Every side gets one group before any gets a second; a rest has too few for that.
        waiting = list(SIDES) if len(names) >= len(SIDES) else []
        for name in names:
            side = (
                waiting.pop(0)
                if waiting
                else max(SIDES, key=lambda side: shares[side] * total - filled[side])
            )
            side_of[name] = side
            filled[side] += len(members[name])
    sides = {item.image_id: side_of[groups[item.image_id]] for item in items}
    if not leaky:
        check_leakage(items, sides)
    return sides


def _stratify(members: Mapping[str, Sequence[SplitItem]]) -> dict[str, list[str]]:
    """Return stratum -> groups: one for each diagnosis; what is too rare joins others of its label.

    Raises `DataError` for a label that has not a group for each side.
    """
    by_label: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for group, images in members.items():
        counted = Counter(sorted((i.label, i.diagnosis or i.label) for i in images))
        label, diagnosis = counted.most_common(1)[0][0]
        by_label[label][diagnosis].append(group)
    strata: dict[str, list[str]] = {}
    for label, diagnoses in by_label.items():
        number = sum(map(len, diagnoses.values()))
        if number < len(SIDES):
            raise DataError(
                f"class {label!r} has {number} lesions; a split needs at least {len(SIDES)}, "
                "one for each side. Add images, or map the class to another label in a task file."
            )
        rare = [name for name, groups in diagnoses.items() if len(groups) < len(SIDES)]
        strata |= {name: groups for name, groups in diagnoses.items() if name not in rare}
        if rare:
            strata[f"other {label}"] = sorted(g for name in rare for g in diagnoses[name])
    return strata


def count_leaks(items: Iterable[SplitItem], sides: Mapping[str, str]) -> int:
    """Return how many lesions stand on more than one side."""
    found: dict[str, set[str]] = defaultdict(set)
    for item in items:
        if item.lesion_id:
            found[item.lesion_id].add(sides[item.image_id])
    return sum(len(where) > 1 for where in found.values())


def check_leakage(items: Iterable[SplitItem], sides: Mapping[str, str]) -> None:
    """Raise `LeakageError` if a lesion, or the same pixels, stand on two sides."""
    keys: tuple[tuple[str, _Key], ...] = (
        ("lesion", lambda item: item.lesion_id),
        ("pixels", lambda item: item.pixels),
    )
    items = list(items)  # it is walked twice
    for what, key in keys:
        seen: dict[str, tuple[str, str]] = {}
        leaks = []
        for item in items:
            name = key(item)
            if not name:
                continue
            side = sides[item.image_id]
            other, first = seen.setdefault(name, (side, item.image_id))
            if other != side:
                leaks.append(f"{name[:16]} ({first} in {other}, {item.image_id} in {side})")
        if leaks:
            raise LeakageError(
                f"{len(leaks)} image(s) share their {what} with another side of the split: "
                f"{'; '.join(leaks[:3])}. A lesion may stand on one side only: make the split "
                "with `lesiontk data split`."
            )


def hash_split(sides: Mapping[str, str], diagnoses: Mapping[str, str]) -> str:
    """Return the SHA-256 of a split: every image with its diagnosis and side, in order of its id.

    Tasks over the same images and sides have the same hash.
    """
    lines = "".join(f"{image},{diagnoses[image]},{sides[image]}\n" for image in sorted(sides))
    return hashlib.sha256(lines.encode()).hexdigest()
