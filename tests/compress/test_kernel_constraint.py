"""Zeros that stay zero and weights that stay equal: in NumPy, and the same in TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesiontk.compress.keras_layers import make_kernel_constraint
from lesiontk.compress.kernel_constraint import (
    KernelCounts,
    KernelStructure,
    count_structure,
    find_ties,
    find_zeros,
)
from lesiontk.compress.magnitude import Pattern, choose_kept, plan_sparsity
from lesiontk.compress.weight_clusters import cluster_weights
from lesiontk.errors import DataError
from lesiontk.stages.sparsify import SparsifyConfig, choose_zeros, list_dense
from lesiontk.system.frameworks import import_keras, import_tensorflow
from tests.model_optimization import import_sparsity


def make_kernel(seed: int, shape: tuple[int, ...] = (3, 3, 8, 16)) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# ------------------------------------------------------------------ structure


@given(st.integers(0, 1000), st.integers(1, 9))
def test_applying_a_structure_twice_changes_nothing_more(seed: int, values: int) -> None:
    generator = np.random.default_rng(seed)
    kernel = make_kernel(seed, (2, 2, 4, 4))
    structure = KernelStructure(
        kept=generator.random(kernel.shape) > 0.5,
        ties=generator.integers(values, size=kernel.shape).astype(np.int32),
    )
    once = structure.apply(kernel)
    assert len(np.unique(once)) <= values
    only_zeros = KernelStructure(kept=structure.kept).apply(kernel)
    np.testing.assert_array_equal(only_zeros == 0, ~structure.kept)  # type: ignore[operator]
    np.testing.assert_allclose(
        KernelStructure(ties=structure.ties).apply(once), once, rtol=1e-5, atol=1e-7
    )


def test_tensorflow_holds_as_numpy_applies_and_lets_gradients_through() -> None:
    tf = import_tensorflow()
    kernel = make_kernel(0)
    sparse = kernel * choose_kept(kernel, 0.5, "unstructured")
    ties = cluster_weights(sparse, 8)
    structure = KernelStructure(kept=sparse != 0, ties=ties)
    variable = tf.Variable(kernel)
    with tf.GradientTape() as tape:
        held = make_kernel_constraint(structure)(variable)
        loss = tf.reduce_sum(held * tf.constant(make_kernel(1)))
    np.testing.assert_allclose(held.numpy(), structure.apply(kernel), atol=1e-6)
    gradient = tape.gradient(loss, variable).numpy()
    assert (gradient[sparse == 0] == 0).all()
    for number in range(1, 8):
        assert np.ptp(gradient[ties == number]) < 1e-6  # one cluster moves as one


def test_what_is_equal_stays_found_after_each_channel_was_scaled() -> None:
    """As folding a normalization does; zeros are found, too."""
    kernel = make_kernel(2)
    kernel *= choose_kept(kernel, 0.6, "unstructured")
    clustered = KernelStructure(kernel != 0, cluster_weights(kernel, 6)).apply(kernel)
    folded = clustered * np.linspace(0.1, 3, 16, dtype=np.float32)
    structure = find_ties(folded)
    np.testing.assert_array_equal(structure.apply(folded), folded)
    np.testing.assert_array_equal(structure.kept, clustered != 0)
    moved = structure.apply(folded + 0.01 * make_kernel(3))
    for channel in range(16):
        assert len(np.unique(moved[..., channel])) <= 6
    np.testing.assert_array_equal(find_zeros(folded).kept, clustered != 0)


# ------------------------------------------------------------------ magnitude


def test_the_largest_magnitudes_stay() -> None:
    kernel = make_kernel(4)
    kept = choose_kept(kernel, 0.75, "unstructured")
    assert 1 - kept.mean() == pytest.approx(0.75, abs=1e-3)
    assert np.abs(kernel[kept]).min() >= np.abs(kernel[~kept]).max()


def test_two_of_four_neighbouring_inputs_stay() -> None:
    kernel = make_kernel(5)
    kept = choose_kept(kernel, 0.5, "2:4")
    groups = kept.reshape(3, 3, 2, 4, 16)  # the eight inputs, in fours
    np.testing.assert_array_equal(groups.sum(axis=3), 2)
    magnitudes = np.abs(kernel).reshape(groups.shape)
    least = np.where(groups, magnitudes, np.inf).min(axis=3)
    most = np.where(groups, 0, magnitudes).max(axis=3)
    assert (least >= most).all()


def test_no_group_of_four_spans_two_places() -> None:
    with pytest.raises(DataError, match=r"\[3, 3, 6, 16\] has 6 inputs; expected a multiple of 4"):
        choose_kept(make_kernel(5, (3, 3, 6, 16)), 0.5, "2:4")
    assert choose_kept(make_kernel(5, (3, 3, 6, 16)), 0.5, "unstructured").mean() < 0.51


def test_no_block_spans_two_places() -> None:
    kernel = make_kernel(5, (3, 3, 3, 16))
    with pytest.raises(DataError, match=r"\[3, 3, 3, 16\] has 3 inputs; expected a multiple of 2"):
        choose_kept(kernel, 0.5, "block", (2, 4))
    assert choose_kept(kernel, 0.5, "block", (3, 4)).mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    "fours", [SparsifyConfig(pattern="2:4"), SparsifyConfig(pattern="block", block=(4, 1))]
)
def test_layers_whose_inputs_are_no_fours_are_left_dense_and_named(fours: SparsifyConfig) -> None:
    kernels = {"even": make_kernel(1, (3, 3, 8, 4)), "odd": make_kernel(2, (3, 3, 6, 4))}
    assert list_dense(kernels, fours) == ["odd"]
    assert list_dense(kernels, SparsifyConfig()) == []
    assert list(choose_zeros(kernels, 0.5, fours)) == ["even"]
    with pytest.raises(DataError, match=r"no layer .*: the inputs of odd .* multiple of 4"):
        list_dense({"odd": kernels["odd"]}, fours)


def test_blocks_are_kept_or_zeroed_whole() -> None:
    kept = choose_kept(make_kernel(6), 0.5, "block", (1, 4))
    blocks = kept.reshape(3, 3, 8, 4, 4).sum(axis=-1)
    assert set(np.unique(blocks)) == {0, 4}
    assert kept.mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("shape", [(3, 3, 8, 16), (64, 12)], ids=["convolution", "dense"])
@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "block"])
def test_masks_are_those_of_model_optimization(
    pattern: Pattern, sparsity: float, shape: tuple[int, ...]
) -> None:
    kernel, block = make_kernel(9, shape), (2, 4)
    options: dict[str, Any] = {"2:4": {"sparsity_m_by_n": (2, 4)}, "block": {"block_size": block}}
    tools, dense = import_sparsity(), import_keras().layers.Dense(shape[-1], use_bias=False)
    schedule = tools.ConstantSparsity(sparsity, begin_step=0, frequency=1)
    wrapper = tools.prune_low_magnitude(
        dense, pruning_schedule=schedule, **options.get(pattern, {})
    )
    flat = kernel.reshape(-1, shape[-1])
    wrapper.build((None, len(flat)))
    dense.set_weights([flat])
    wrapper.pruning_step.assign(1)
    wrapper.pruning_obj.conditional_mask_update()
    ((_, mask, _),) = wrapper.pruning_vars
    expected = mask.numpy().reshape(shape) != 0
    np.testing.assert_array_equal(choose_kept(kernel, sparsity, pattern, block), expected)


def test_the_last_block_of_a_row_may_be_narrower() -> None:
    kernel = make_kernel(9, (8, 10))
    kept = choose_kept(kernel, 0.5, "block", (2, 4))
    magnitude = np.abs(kernel).reshape(4, 2, 10)
    means = [magnitude[..., first : first + 4].mean(axis=(1, 2)) for first in (0, 4, 8)]
    largest = np.argsort(np.stack(means, axis=1).ravel())[6:]
    expected = np.isin(np.arange(12), largest).reshape(4, 3)
    expected = expected.repeat(2, axis=0).repeat(4, axis=1)[:, :10]
    np.testing.assert_array_equal(kept, expected)


@given(st.integers(1, 40), st.floats(0.01, 0.99))
def test_equal_magnitudes_are_zeroed_in_the_share_that_was_asked(
    width: int, sparsity: float
) -> None:
    kept = choose_kept(np.ones((4, width), np.float32), sparsity, "unstructured")
    assert kept.sum() == max(round(4 * width * (1 - sparsity)), 1)


def test_the_zeros_grow_fast_at_first_and_end_where_they_should() -> None:
    rounds = plan_sparsity(0.8, 4)
    assert rounds[-1] == pytest.approx(0.8)
    assert rounds[0] == pytest.approx(0.8 * (1 - 0.75**3))
    steps = np.diff([0.0, *rounds])
    assert (np.diff(steps) < 0).all()
    schedule = import_sparsity().PolynomialDecay(0.0, 0.8, begin_step=0, end_step=4, power=3)
    theirs = [float(schedule(number)[1]) for number in range(1, 5)]
    assert rounds == pytest.approx(theirs, abs=1e-6)


# ------------------------------------------------------------------- clusters


def test_clusters_are_nearer_than_equal_steps() -> None:
    kernel = make_kernel(7, (64, 64))
    ties = cluster_weights(kernel, 16)
    assert len(np.unique(ties)) == 16
    clustered = KernelStructure(ties=ties).apply(kernel)
    step = np.ptp(kernel) / 15
    even = np.round((kernel - kernel.min()) / step) * step + kernel.min()
    assert np.square(clustered - kernel).mean() < 0.7 * np.square(even - kernel).mean()


def test_zeros_are_a_cluster_of_their_own() -> None:
    kernel = make_kernel(8)
    kernel[np.abs(kernel) < 0.7] = 0
    ties = cluster_weights(kernel, 5)
    assert (ties[kernel == 0] == 0).all()
    assert (ties[kernel != 0] > 0).all()
    assert ties.max() == 4


def test_a_kernel_of_few_values_keeps_them() -> None:
    kernel = np.tile(np.array([[0.0, 1.0], [2.0, 1.0]], np.float32), (4, 4))
    clustered = KernelStructure(ties=cluster_weights(kernel, 32)).apply(kernel)
    np.testing.assert_allclose(clustered, kernel, atol=1e-6)


def test_the_rows_count_zeros_and_values() -> None:
    (row,) = count_structure({"a": np.array([[0, 1], [1, 3]], np.float32)})
    assert row == KernelCounts(layer="a", weights=4, zeros=1, values=3)
