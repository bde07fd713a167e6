"""Finds weights that are NaN or infinite and names them before anything is computed with them."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cegppo_jax.finite import NonFiniteError
from cegppo_jax.models.decoder import Params


def not_finite(place: str, tensor: str, wrong: int, size: int) -> NonFiniteError:
    """Returns the error for a tensor with values that are NaN or infinite."""
    return NonFiniteError(
        f"{place}: tensor {tensor!r} has {wrong:,} of {size:,} numbers that are NaN or infinite in "
        "float32, and nothing can be computed with it: the file is damaged, or the training that "
        "wrote it diverged. Take an earlier checkpoint, or download it again"
    )


@jax.jit
def count_not_finite(params: Params) -> Params:
    """Returns how many values of each leaf are NaN or infinite, int32."""
    return jax.tree.map(lambda leaf: jnp.sum(~jnp.isfinite(leaf)), params)


def check_finite(params: Params, place: str) -> None:
    """Raises NonFiniteError for the first leaf with a value that is not finite; `place` names
    the checkpoint.
    """
    counts = jax.tree.leaves(jax.device_get(count_not_finite(params)))
    for (path, leaf), wrong in zip(
        jax.tree_util.tree_leaves_with_path(params), counts, strict=True
    ):
        if wrong:
            name = "/".join(key.key for key in path)
            raise not_finite(place, name, int(wrong), leaf.size)
