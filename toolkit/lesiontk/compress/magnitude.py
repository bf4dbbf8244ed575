"""Which weights of a kernel are zeroed, by magnitude, through tensorflow-model-optimization.

Patterns: ``unstructured`` (any weight), ``2:4`` (two of four neighbouring input channels of one
place, as NVIDIA's sparse tensor cores read them, arXiv:2104.08378), ``block`` (neighbours are kept
or zeroed together). No dense kernel becomes faster by any of them: what changes is the size that
compresses away.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lesiontk.errors import DataError
from lesiontk.system.frameworks import import_keras, import_sparsity

Pattern = Literal["unstructured", "2:4", "block"]


def choose_kept(
    kernel: NDArray[np.float32], sparsity: float, pattern: Pattern, block: tuple[int, int] = (1, 4)
) -> NDArray[np.bool_]:
    """Return where a kernel [..., in, out] keeps its weight, of its shape.

    The largest magnitudes stay, as many as `sparsity` leaves; with ``2:4`` the two largest of each
    four inputs. `block` is (inputs, outputs), of which the mean magnitude counts. Raises
    `DataError` if `fits_pattern` is False.
    """
    if not fits_pattern(kernel, pattern, block):
        raise DataError(
            f"a kernel of shape {list(kernel.shape)} has {kernel.shape[-2]} inputs; expected a "
            f"multiple of {inputs_of(pattern, block)} for the pattern {pattern}."
        )
    sparsity_tools, keras = import_sparsity(), import_keras()
    flat = kernel.reshape(-1, kernel.shape[-1])
    options: dict[str, Any] = {}
    if pattern == "2:4":
        options["sparsity_m_by_n"] = (2, 4)
    if pattern == "block":
        options["block_size"] = block
    dense = keras.layers.Dense(flat.shape[1], use_bias=False)
    schedule = sparsity_tools.ConstantSparsity(sparsity, begin_step=0, frequency=1)
    wrapper = sparsity_tools.prune_low_magnitude(dense, pruning_schedule=schedule, **options)
    wrapper.build((None, flat.shape[0]))
    dense.set_weights([flat])
    wrapper.pruning_step.assign(1)
    wrapper.pruning_obj.conditional_mask_update()
    ((_, mask, _),) = wrapper.pruning_vars
    return np.asarray(mask.numpy() != 0).reshape(kernel.shape)


def inputs_of(pattern: Pattern, block: tuple[int, int]) -> int:
    """Return how many neighbouring inputs a pattern takes together."""
    return {"unstructured": 1, "2:4": 4, "block": block[0]}[pattern]


def fits_pattern(kernel: NDArray[np.float32], pattern: Pattern, block: tuple[int, int]) -> bool:
    """Whether a kernel [..., in, out] can have a pattern: what it takes together is of one place.

    The places of a kernel lie one after another where it is flattened to [places * in, out].
    """
    return int(kernel.shape[-2]) % inputs_of(pattern, block) == 0


def plan_sparsity(final: float, rounds: int) -> tuple[float, ...]:
    """Return the sparsity of each round: ``s * (1 - (1 - r / R)**3)`` (Zhu & Gupta, equation 1)."""
    schedule = import_sparsity().PolynomialDecay(
        initial_sparsity=0.0, final_sparsity=final, begin_step=0, end_step=rounds, power=3
    )
    return tuple(float(schedule(number)[1]) for number in range(1, rounds + 1))
