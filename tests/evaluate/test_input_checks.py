"""The checks of an engine's input: quality, domain, and the fit of both."""

from __future__ import annotations

import ast
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy.spatial.distance import mahalanobis
from sklearn.metrics import roc_auc_score

from lesiontk.errors import DataError
from lesiontk.evaluate import input_checks
from lesiontk.evaluate.fit_input_checks import (
    QUANTILES,
    choose_domain_threshold,
    count_class_refusals,
    fit_distance,
    fit_domain,
    fit_quality,
    measure_all,
    measure_auroc,
    refuse_quality,
    score_signals,
)
from lesiontk.evaluate.input_checks import (
    ACCEPTED,
    ARRAY_NAMES,
    ARRAYS,
    DOCUMENT,
    ENERGY,
    OUT_OF_DOMAIN,
    POOR_QUALITY,
    DomainScore,
    InputVerdict,
    check_input,
    load_checks,
    measure_quality,
    score_domain,
)
from lesiontk.evaluate.signals import Signals


def picture(seed: int = 0, size: int = 16) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(60, 200, (size, size, 3)).astype(np.uint8)


def signals(features: NDArray[np.floating[Any]], classes: int = 3) -> Signals:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(len(features), classes)).astype(np.float32)
    powers = np.exp(logits)
    return Signals(powers / powers.sum(1, keepdims=True), features.astype(np.float32), logits)


def clusters(seed: int, n: int, width: int = 12) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Features of three classes with unequal spread along the axes, and their classes."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(0, 3, (3, width)) + 5
    targets = rng.integers(0, 3, n)
    return centres[targets] + rng.normal(size=(n, width)) * np.linspace(2, 0.2, width), targets


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    image = picture()
    luma = (image.astype(np.int64) @ [77, 150, 29]) >> 8
    expected = [
        luma[y - 1, x] + luma[y + 1, x] + luma[y, x - 1] + luma[y, x + 1] - 4 * luma[y, x]
        for y in range(1, 15)
        for x in range(1, 15)
    ]
    assert measure_quality(image)["sharpness"] == pytest.approx(np.var(expected), rel=1e-12)


def test_a_flat_image_has_no_sharpness_and_its_own_brightness() -> None:
    measures = measure_quality(np.full((9, 9, 3), 255, np.uint8))
    assert measures == {
        "sharpness": 0.0, "brightness": 255.0, "overexposed": 1.0, "underexposed": 0.0
    }  # fmt: skip


@given(st.integers(0, 2**16), st.integers(8, 24))
def test_blur_lowers_sharpness_and_keeps_brightness(seed: int, size: int) -> None:
    image = picture(seed, size)
    blurred = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1.5)))
    before, after = measure_quality(image), measure_quality(blurred)
    assert after["sharpness"] < 0.2 * before["sharpness"]
    assert after["brightness"] == pytest.approx(before["brightness"], abs=6)


def test_each_bound_refuses_an_equal_part_of_the_training_images() -> None:
    measures = measure_all(picture(seed) for seed in range(400))
    bounds = fit_quality(measures, 16, 0.05)
    for name, side in QUANTILES:
        values, bound = measures[name], bounds[name][side]
        beyond = (values < bound) if side == "low" else (values > bound)
        assert beyond.mean() <= 0.05 / len(QUANTILES)
    assert refuse_quality(measures, bounds).mean() <= 0.05
    assert bounds["shorter_side"] == {"low": 16.0}


def test_distance_equals_scipy_with_all_axes_but_one() -> None:
    features, targets = clusters(1, 400)
    fitted = fit_distance(features.astype(np.float32), targets, 11, unit_length=False)
    means = np.stack([features[targets == c].mean(axis=0) for c in range(3)])
    rest = features - means[targets]
    covariance = sum((rest[targets == c].T @ rest[targets == c]) / (targets == c).sum() / 3
                     for c in range(3))  # fmt: skip
    inverse = np.linalg.inv(covariance)
    probe = clusters(2, 20)[0]
    expected = [min(mahalanobis(row, mean, inverse) ** 2 for mean in means) for row in probe]
    assert score_domain(fitted, None, probe, None) == pytest.approx(expected, rel=2e-3)


def test_a_common_class_does_not_set_the_covariance() -> None:
    rng = np.random.default_rng(3)
    common, rare = rng.normal(0, 1, (2000, 6)), rng.normal(8, 3, (40, 6))
    features = np.concatenate([common, rare]).astype(np.float32)
    targets = np.repeat([0, 1], [2000, 40])
    fitted = fit_distance(features, targets, 5, unit_length=False)
    scores = score_domain(fitted, None, features, None)
    # Half of each class: one unit of spread would be nine times too small for the rare one.
    assert np.median(scores[targets == 1]) < 12
    assert np.median(scores[targets == 0]) < 12


def test_unit_length_ignores_the_length_of_features() -> None:
    features, targets = clusters(4, 300)
    fitted = fit_distance(features.astype(np.float32), targets, 4, unit_length=True)
    probe = clusters(5, 10)[0]
    once = score_domain(fitted, None, probe, None)
    assert score_domain(fitted, None, 7 * probe, None) == pytest.approx(once, rel=1e-6)
    assert np.isfinite(score_domain(fitted, None, np.zeros((1, 12)), None)).all()


def test_features_without_variance_are_refused_by_number() -> None:
    with pytest.raises(DataError, match="fewer than 5 axes"):
        fit_distance(np.ones((30, 8), np.float32), np.arange(30) % 3, 4, unit_length=False)


def test_energy_is_minus_logsumexp_without_overflow() -> None:
    logits = np.array([[1.0, 2.0, 3.0], [900.0, 0.0, 0.0]])
    found = score_domain(DomainScore(ENERGY), None, None, logits)
    assert found == pytest.approx([-np.log(np.exp([1, 2, 3]).sum()), -900.0])


def test_the_best_score_on_validation_is_chosen() -> None:
    train, targets = clusters(6, 600)
    far = {"far": signals(np.random.default_rng(7).normal(-8, 1, (80, 12)))}
    fitted = fit_domain(signals(train), targets, signals(clusters(8, 200)[0]), far)
    assert fitted.name.startswith("Mahalanobis")
    assert {c.name: c.auroc for c in fitted.candidates}[fitted.name] == max(
        c.auroc for c in fitted.candidates
    )
    assert score_signals(fitted.domain, far["far"]).min() > np.quantile(
        score_signals(fitted.domain, signals(clusters(9, 200)[0])), 0.99
    )


@given(st.lists(st.integers(0, 6), min_size=2, max_size=30), st.integers(1, 29))
def test_auroc_equals_scikit_learn(values: list[int], cut: int) -> None:
    known, other = np.array(values[:cut], float), np.array(values[cut:], float)
    if len(known) and len(other):
        truth = np.repeat([0, 1], [len(known), len(other)])
        assert measure_auroc(known, other) == pytest.approx(roc_auc_score(truth, values))


@given(st.lists(st.floats(-1e3, 1e3), min_size=5, max_size=200), st.floats(0.01, 0.4))
def test_the_threshold_refuses_at_most_its_rate(values: list[float], rate: float) -> None:
    scores = np.array(values)
    assert (scores > choose_domain_threshold(scores, rate)).mean() <= rate


def test_refusals_count_an_image_once_and_skip_classes_without_images() -> None:
    found = count_class_refusals(
        ("a", "b", "c"),
        np.array([0, 0, 0, 2]),
        np.array([True, False, False, False]),
        np.array([True, True, False, False]),
    )
    assert [(row.label, row.n, row.poor_quality, row.out_of_domain) for row in found] == [
        ("a", 3, 1, 1),
        ("c", 1, 0, 0),
    ]
    assert found[0].share == pytest.approx(2 / 3)
    assert found[1].upper == pytest.approx(0.95)


def write_checks(folder: Path, threshold: float) -> DomainScore:
    train, targets = clusters(6, 600)
    domain = fit_distance(train.astype(np.float32), targets, 4, unit_length=False)
    assert domain.distance is not None
    values = asdict(domain.distance)
    arrays = {name: values.pop(name) for name in ARRAY_NAMES}
    document = {
        "engine_sha256": "0" * 64,
        "quality": {"sharpness": {"low": 50.0}, "shorter_side": {"low": 16.0}},
        "domain": {
            "score": domain.kind,
            **values,
            "threshold": threshold,
            "arrays": {name: list(value.shape) for name, value in arrays.items()},
        },
    }
    (folder / DOCUMENT).write_text(json.dumps(document))
    (folder / ARRAYS).write_bytes(b"".join(value.tobytes() for value in arrays.values()))
    return domain


def test_a_picture_is_accepted_of_poor_quality_or_out_of_domain(tmp_path: Path) -> None:
    domain = write_checks(tmp_path, 60.0)
    checks = load_checks(tmp_path)
    known = clusters(8, 1)[0]
    assert score_domain(checks.domain, None, known, None) == score_domain(domain, None, known, None)
    probabilities = logits = np.ones(3, np.float32) / 3

    def check(image: NDArray[np.uint8], side: int, features: NDArray[Any]) -> InputVerdict:
        return check_input(checks, image, side, probabilities, features, logits)

    assert check(picture(), 240, known[0])["status"] == ACCEPTED
    blurred = check(np.full((16, 16, 3), 90, np.uint8), 240, known[0])
    assert (blurred["status"], blurred["reasons"]) == (POOR_QUALITY, ["the picture is blurred"])
    small = check(picture(), 15, known[0])
    assert small["reasons"] == ["the picture has too few pixels"]
    far = check(picture(), 240, known[0] - 50)
    assert far["status"] == OUT_OF_DOMAIN
    assert far["measures"]["domain"] > 60
    # Not a number is never accepted.
    assert check(picture(), 240, known[0] * np.nan)["status"] == OUT_OF_DOMAIN


def test_bundles_can_contain_the_file() -> None:
    """It is valid for Python 3.8 and needs NumPy only."""
    source = Path(input_checks.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 8))
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert imported == {
        "__future__", "collections.abc", "dataclasses", "json", "pathlib", "typing", "numpy"
    }  # fmt: skip
