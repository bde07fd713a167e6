"""The one interface of attention, its implementations, and which of them a platform gets.

    xla                  plain XLA, on every platform: rows block by block, a step by all scores,
                         pages copied side by side for it
    splash               JAX's kernels for TPUs (Pallas): rows by splash attention, pages by paged
                         attention; a step on a contiguous cache as xla
    splash_interpreted   the same kernels without a TPU, slowly: for tests

GPUs get xla: cuDNN's attention, as `jax.nn.dot_product_attention` offers it, knows no segments; it
would need the mask [C, C] of every row in memory.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, Protocol, TypeVar

import jax
from jax.sharding import Mesh

from cegppo_jax.models.attention.dense import attend
from cegppo_jax.models.attention.in_blocks import attend_in_blocks
from cegppo_jax.models.attention.mask import SegmentMask
from cegppo_jax.models.attention.paged import PagedStep, attend_by_kernel, attend_to_gathered

T = TypeVar("T", bound=Any)  # settings, a dataclass with a field `attention`
AUTO = "auto"  # what suits the platform
ATTENTION_SETTINGS = (AUTO, "xla", "splash")  # what can be asked for


class Rows(Protocol):
    """Attention of packed rows to themselves: training, log-probabilities, prefill."""

    def __call__(
        self, query: jax.Array, keys: jax.Array, values: jax.Array, mask: SegmentMask, /
    ) -> jax.Array:
        """Returns [B, C, N, H] in the dtype of the values.

        Args:
          query: [B, C, N, H]. keys, values: [B, K, C, H]; N / K queries share a head of keys.
        """


class Step(Protocol):
    """Attention of a decode step to the cache, in which its own token is already written."""

    def __call__(
        self, query: jax.Array, keys: jax.Array, values: jax.Array, reach: jax.Array, /
    ) -> jax.Array:
        """Returns [B, 1, N, H].

        Args:
          query: [B, 1, N, H]. keys, values: [B, K, T, H]. reach: [B, 1, T] bool.
        """


@dataclasses.dataclass(frozen=True)
class AttentionKernels:
    """An implementation of attention."""

    rows: Rows
    step: Step
    pages: PagedStep


def _splash(interpret: bool) -> Rows:
    def rows(
        query: jax.Array, keys: jax.Array, values: jax.Array, mask: SegmentMask, /
    ) -> jax.Array:
        # Here, since Pallas would add to every start
        from cegppo_jax.models.attention.splash import splash_rows

        return splash_rows(query, keys, values, mask, interpret=interpret)

    return rows


ATTENTIONS = {
    "xla": AttentionKernels(attend_in_blocks, attend, attend_to_gathered),
    "splash": AttentionKernels(
        _splash(interpret=False), attend, partial(attend_by_kernel, interpret=False)
    ),
    "splash_interpreted": AttentionKernels(
        _splash(interpret=True), attend, partial(attend_by_kernel, interpret=True)
    ),
}


def choose_attention(setting: str, platform: str) -> str:
    """Returns the implementation, a key of ATTENTIONS, for one of ATTENTION_SETTINGS.

    Args:
      platform: of the devices that will run it: "cpu", "gpu" or "tpu".

    Raises:
      ValueError: the platform cannot run what was asked for.
    """
    if setting == AUTO:
        return "splash" if platform == "tpu" else "xla"
    if setting == "splash" and platform == "cpu":
        return "splash_interpreted"
    if setting == "splash" and platform != "tpu":
        raise ValueError(
            f"attention = 'splash' is made of kernels for TPUs, and the devices here are "
            f"{platform}s: set it to 'auto' or 'xla'"
        )
    return setting


def chosen_for(mesh: Mesh, settings: T) -> T:
    """Returns settings whose field `attention`, one of ATTENTION_SETTINGS, is replaced by the
    implementation that the mesh's devices get.

    Raises:
      ValueError: they cannot run what was asked for.
    """
    found = choose_attention(settings.attention, mesh.devices.flat[0].platform)
    return dataclasses.replace(settings, attention=found)
