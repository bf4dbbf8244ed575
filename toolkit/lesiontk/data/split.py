"""Assignment of lesions to training, validation and test; plain Python, no framework."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lesiontk.errors import DataError, LeakageError
from lesiontk.records import SUBSETS


@dataclass(frozen=True, slots=True)
class SplitItem:
    """One image to assign: `lesion_id` may be unknown, `pixels` is the hash of its pixels.

    `diagnosis` is that of the source; a task's `label` may combine several. `copy_of` and `alike`
    are the clusters of `lesiontk.data.duplicates`.
    """

    image_id: str
    lesion_id: str | None
    label: str
    pixels: str
    diagnosis: str = ""
    patient_id: str | None = None
    copy_of: str = ""
    alike: str = ""


NearDuplicates = Literal["group", "accept"]
_Key = Callable[[SplitItem], str | None]


def group_images(
    items: Sequence[SplitItem], *, near_duplicates: NearDuplicates = "group"
) -> dict[str, str]:
    """Return image id -> group, named after its first image.

    Images that share a lesion, a patient or their pixels share a group, transitively. With
    `near_duplicates` "group" this holds for copies, too, and for near-duplicates if one of them has
    neither a known lesion nor a known patient; otherwise such an image is a group of its own.
    """
    from scipy.cluster.hierarchy import DisjointSet  # slow to import; no help needs it

    unknown = {item.alike for item in items if not item.lesion_id and not item.patient_id}
    groups = DisjointSet(item.image_id for item in items)
    keys: list[_Key] = [
        lambda item: item.lesion_id,
        lambda item: item.patient_id,
        lambda item: item.pixels,
    ]
    if near_duplicates == "group":
        keys.append(lambda item: item.copy_of)
        keys.append(lambda item: item.alike if item.alike in unknown else None)
    for key in keys:
        first: dict[str, str] = {}
        for item in items:
            if name := key(item):
                groups.merge(first.setdefault(name, item.image_id), item.image_id)
    return {image: min(group) for group in groups.subsets() for image in group}


def split_by_group(
    items: Sequence[SplitItem],
    groups: Mapping[str, str],
    *,
    test: float,
    validation: float,
    seed: int,
) -> dict[str, str]:
    """Return image id -> subset, stratified by diagnosis; no group of `groups` is divided.

    Stratification is by diagnosis, not by label, so that two tasks over the same images have the
    same subsets. The groups of each diagnosis are shuffled by `seed`; each goes to the subset that
    is furthest below its share of the diagnosis's images. Raises `DataError` if a label has fewer
    than three groups, because a subset would lack it.
    """
    members: dict[str, list[SplitItem]] = defaultdict(list)
    for item in items:
        members[groups[item.image_id]].append(item)
    strata = _stratify(members, len(SUBSETS), "a split", "one for each subset")
    shares = {"train": 1.0 - test - validation, "validation": validation, "test": test}
    subset_of: dict[str, str] = {}
    for stratum in sorted(strata):
        subset_of |= _deal(stratum, strata[stratum], shares, seed)
    subsets = {item.image_id: subset_of[groups[item.image_id]] for item in items}
    _check_subsets(items, subsets)
    return subsets


def split_fold(
    items: Sequence[SplitItem],
    groups: Mapping[str, str],
    *,
    folds: int,
    fold: int,
    validation: float,
    seed: int,
) -> dict[str, str]:
    """Return image id -> subset of the cross-validation's fold `fold`, 1 to `folds`.

    The groups are dealt into folds of equal shares as in `split_by_group`; every image is in the
    test subset of exactly one fold. Validation, a share of all images, is dealt from the others.
    Raises `DataError` if a label has too few groups for each fold to test it, train it and validate
    it.
    """
    members: dict[str, list[SplitItem]] = defaultdict(list)
    for item in items:
        members[groups[item.image_id]].append(item)
    # With two folds of two groups none would be left to validate.
    strata = _stratify(
        members, max(folds, 4), f"cross-validation in {folds} folds", "so that each fold has some"
    )
    remaining = 1.0 - 1.0 / folds
    shares = {"train": 1.0 - validation / remaining, "validation": validation / remaining}
    filled: Counter[str] = Counter()
    subset_of: dict[str, str] = {}
    for stratum in sorted(strata):
        weights = strata[stratum]
        # The emptiest fold first: the remainders of the strata even out.
        names = sorted(map(str, range(1, folds + 1)), key=lambda name: (filled[name], int(name)))
        fold_of = _deal(stratum, weights, dict.fromkeys(names, 1.0 / folds), seed)
        for group, name in fold_of.items():
            filled[name] += weights[group]
        rest = {g: weight for g, weight in weights.items() if fold_of[g] != str(fold)}
        subset_of |= dict.fromkeys(fold_of, "test") | _deal(stratum, rest, shares, seed)
    subsets = {item.image_id: subset_of[groups[item.image_id]] for item in items}
    _check_subsets(items, subsets)
    return subsets


def _deal(
    stratum: str, weights: Mapping[str, int], shares: Mapping[str, float], seed: int
) -> dict[str, str]:
    """Return group -> part: each group goes to the part furthest below its share of the weight.

    The groups are shuffled by `seed`; every part gets one before any gets a second, unless there
    are too few. Of equal parts the first is chosen.
    """
    names = sorted(weights)
    order = np.random.default_rng([seed, *hashlib.sha256(stratum.encode()).digest()[:4]])
    order.shuffle(names)
    total = sum(weights.values())
    filled: Counter[str] = Counter()
    waiting = list(shares) if len(names) >= len(shares) else []
    part_of: dict[str, str] = {}
    for name in names:
        part = (
            waiting.pop(0)
            if waiting
            else max(shares, key=lambda part: shares[part] * total - filled[part])
        )
        part_of[name] = part
        filled[part] += weights[name]
    return part_of


def _stratify(
    members: Mapping[str, Sequence[SplitItem]], fewest: int, what: str, why: str
) -> dict[str, dict[str, int]]:
    """Return stratum -> group -> its images of that stratum.

    A group belongs to the rarest of its diagnoses: a patient with a melanoma and many naevi belongs
    to the melanomas. There is a stratum for each diagnosis; diagnoses with fewer groups than
    `fewest` share one with others of their label. Raises `DataError` for a label with fewer groups;
    the message contains `what` needs them, and `why`.
    """
    items = [item for images in members.values() for item in images]
    number = Counter((item.label, item.diagnosis or item.label) for item in items)
    by_label: dict[str, dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    groups_of: Counter[str] = Counter()
    for group, images in members.items():
        counted = Counter((item.label, item.diagnosis or item.label) for item in images)
        label, diagnosis = rarest = min(counted, key=lambda key: (number[key], key))
        by_label[label][diagnosis][group] = counted[rarest]
        groups_of.update({item.label for item in images})
    for label, count in sorted(groups_of.items()):
        if count < fewest:
            images_of = sum(item.label == label for item in items)
            raise DataError(
                f"class {label!r} has {count} lesions; {what} needs at least {fewest}, {why}. Its "
                f"{images_of} images count once per lesion, patient or near-duplicate. Add images, "
                "or merge the class with another one in a task file, as `lesiontk task new` does."
            )
    strata: dict[str, dict[str, int]] = {}
    for label, diagnoses in by_label.items():
        rare = [name for name, groups in diagnoses.items() if len(groups) < fewest]
        strata |= {name: groups for name, groups in diagnoses.items() if name not in rare}
        if rare:
            strata[f"other {label}"] = {
                group: weight for name in rare for group, weight in diagnoses[name].items()
            }
    return strata


def _check_subsets(items: Sequence[SplitItem], subsets: Mapping[str, str]) -> None:
    """Raise `DataError` if a subset has no image of a label, as groups of several labels can
    cause."""
    found: dict[str, set[str]] = defaultdict(set)
    for item in items:
        found[item.label].add(subsets[item.image_id])
    for label in sorted(found):
        if missing := [subset for subset in SUBSETS if subset not in found[label]]:
            raise DataError(
                f"class {label!r} has no image in the subset {', '.join(missing)}: its images "
                "belong to too few lesions or patients that also have other classes. Add images, "
                "or try another seed with --set data.split.seed=N."
            )


def count_leaks(
    items: Iterable[SplitItem], subsets: Mapping[str, str], key: _Key = lambda item: item.lesion_id
) -> int:
    """Return how many lesions, or values of another `key`, are in more than one subset."""
    found: dict[str, set[str]] = defaultdict(set)
    for item in items:
        if name := key(item):
            found[name].add(subsets[item.image_id])
    return sum(len(where) > 1 for where in found.values())


def check_leakage(items: Iterable[SplitItem], subsets: Mapping[str, str]) -> None:
    """Raise `LeakageError` if a lesion, a patient, or the same pixels, are in two subsets."""
    keys: tuple[tuple[str, _Key], ...] = (
        ("lesion", lambda item: item.lesion_id),
        ("patient", lambda item: item.patient_id),
        ("pixels", lambda item: item.pixels),
    )
    items = list(items)  # it is iterated several times
    for what, key in keys:
        seen: dict[str, tuple[str, str]] = {}
        leaks = []
        for item in items:
            name = key(item)
            if not name:
                continue
            subset = subsets[item.image_id]
            other, first = seen.setdefault(name, (subset, item.image_id))
            if other != subset:
                leaks.append(f"{name[:16]} ({first} in {other}, {item.image_id} in {subset})")
        if leaks:
            raise LeakageError(
                f"{len(leaks)} image(s) share their {what} with another subset of the split: "
                f"{'; '.join(leaks[:3])}. A lesion may be in one subset only: make the split "
                "with `lesiontk data split`."
            )


def hash_split(subsets: Mapping[str, str], diagnoses: Mapping[str, str]) -> str:
    """Return the SHA-256 of a split: every image with its diagnosis and subset, sorted by id.

    Tasks over the same images and subsets have the same hash.
    """
    lines = "".join(f"{image},{diagnoses[image]},{subsets[image]}\n" for image in sorted(subsets))
    return hashlib.sha256(lines.encode()).hexdigest()


def check_contradictions(items: Iterable[SplitItem], near_duplicates: NearDuplicates) -> None:
    """Raise `DataError` if one image has two labels.

    The same pixels always count as one image, copies unless near-duplicates are accepted.
    """
    items = list(items)  # it is iterated twice
    remedy = "Correct the diagnosis or remove these images; `lesiontk data check` lists them."
    _refuse_two_labels(items, lambda item: item.pixels, "image", remedy)
    if near_duplicates == "group":
        remedy += " --accept-near-duplicates treats them as different images."
        _refuse_two_labels(items, lambda item: item.copy_of, "near-identical image", remedy)


def _refuse_two_labels(items: Iterable[SplitItem], key: _Key, what: str, remedy: str) -> None:
    labelled: dict[str, dict[str, str]] = defaultdict(dict)
    for item in items:
        if name := key(item):
            labelled[name].setdefault(item.label, item.image_id)
    contradictory = [
        " and ".join(f"{image} ({label})" for label, image in sorted(labels.items()))
        for labels in labelled.values()
        if len(labels) > 1
    ]
    if contradictory:
        raise DataError(
            f"{len(contradictory)} {what}{' has' if len(contradictory) == 1 else 's have'} several "
            f"diagnoses: {'; '.join(contradictory[:3])}; expected one for each image. {remedy}"
        )
