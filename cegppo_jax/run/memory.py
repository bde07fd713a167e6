"""The memory that a command needs, from model, sampler and mesh: stated and checked before it
starts.

Where shapes and layouts of arrays are known, the bytes are exact: weights, decode copy, KV cache,
optimizer state. The working memory of compiled programs is an estimate.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import psutil
from jax.sharding import Mesh

from cegppo_jax.distributed import local_devices
from cegppo_jax.learner.train_state import init_state, state_shardings
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import abstract_params
from cegppo_jax.models.kv_cache import CACHE_AXES, KVCache, empty_cache
from cegppo_jax.run.settings import RunSettings
from cegppo_jax.sampling.programs import cache_axes, slots_cache
from cegppo_jax.sampling.settings import SamplerSettings, chosen
from cegppo_jax.sharding import DECODE_RULES, batch_shards, named_sharding, tree_shardings

CGROUP = Path("/sys/fs/cgroup")  # a container's own limit (version 2)
GB = 1e9
SHARE = 0.9  # of a device's memory, up to which pages are made: what is needed is an estimate


@dataclasses.dataclass(frozen=True)
class MemoryNeed:
    """What a command needs, in bytes a device: what is always there, and what each of several
    phases adds.
    """

    held: dict[str, int]
    phases: dict[str, dict[str, int]]

    @property
    def largest_phase(self) -> dict[str, int]:
        """Returns what the phase with the largest need adds."""
        return max(self.phases.values(), key=lambda parts: sum(parts.values()))

    @property
    def total(self) -> int:
        """Returns the bytes a device at the peak."""
        return sum(self.held.values()) + sum(self.largest_phase.values())

    def describe(self, devices: int) -> str:
        """Describes the need of `devices` devices that share a memory: "7.1 GB: weights 3.6, KV
        cache 0.5, ...".
        """
        parts = self.held | self.largest_phase
        named = (f"{name} {devices * size / GB:.3g}" for name, size in parts.items() if size)
        return f"{devices * self.total / GB:.3g} GB ({', '.join(named)})"


def evaluation_need(model: ModelConfig, sampler: SamplerSettings, mesh: Mesh) -> MemoryNeed:
    """Returns what an evaluation needs. It loads its weights leaf by leaf into their decode
    copy.
    """
    dtype = jnp.dtype(sampler.dtype)
    shapes, specs = abstract_params(model, unrolled=False)
    leaves = leaf_bytes(shapes, tree_shardings(mesh, specs))
    return MemoryNeed(
        held={
            f"weights in {sampler.dtype}": decode_copy_bytes(model, mesh, dtype),
            **cache_bytes(model, sampler, mesh),
        },
        phases={
            "loading": {"loading a leaf in float32": 2 * max(leaves)},
            "decoding": decoding_bytes(model, sampler, mesh),
        },
    )


def training_need(
    settings: RunSettings, model: ModelConfig, mesh: Mesh, sampler: SamplerSettings | None = None
) -> MemoryNeed:
    """Returns what a run needs: its state and the sampler's slots all the time, and in turn a
    rollout or an update. The update of a warm start needs the same.

    Args:
      sampler: its settings, if they are not those of `settings`.
    """
    sampler, batch = sampler or settings.sampler, settings.batch
    shapes = jax.eval_shape(partial(init_state, mesh, model, settings.optimizer), jax.random.key(0))
    layout = state_shardings(mesh, model, settings.optimizer)
    weights = sum(leaf_bytes(shapes.params, layout.params))
    optimizer = sum(leaf_bytes(shapes.optimizer_state, layout.optimizer_state))
    rows = batch.rows_per_microbatch // batch_shards(mesh)
    tokens, kept = rows * batch.row_tokens, jnp.dtype(settings.trainer.dtype).itemsize
    per_layer = kept_width(model, settings.trainer.rematerialise)
    logits = rows * settings.trainer.logprob_chunk_tokens * model.vocab_size
    activations = tokens * kept * (model.layers * per_layer + block_width(model))
    reference = weights if settings.loss.kl_place != "none" else 0
    return MemoryNeed(
        held={
            "weights in float32": weights,
            "optimizer state": optimizer,
            "reference policy": reference,
            **cache_bytes(model, sampler, mesh),
        },
        phases={
            "rollout": {
                f"decode copy in {sampler.dtype}": decode_copy_bytes(
                    model, mesh, jnp.dtype(sampler.dtype)
                ),
                **decoding_bytes(model, sampler, mesh),
            },
            "update": {
                "gradients": weights,
                "working room of the update": activations + 12 * logits // mesh.shape["tensor"],
            },
        },
    )


def float32_bytes(model: ModelConfig) -> int:
    """Returns the bytes of all weights of a model in float32."""
    shapes, _ = abstract_params(model, unrolled=False)
    return sum(4 * leaf.size for leaf in jax.tree.leaves(shapes))


def kept_width(model: ModelConfig, rematerialise: str) -> int:
    """Returns how many numbers a token a block keeps for its backward pass: its input, with
    attention's result, its products with weights, or all that it computes.
    """
    query_and_mixed = 2 * model.heads * model.head_size
    kept = {
        "full": model.width,
        "all_but_attention": model.width + query_and_mixed,
        "minimal": 3 * model.width + query_and_mixed + 2 * model.mlp_width,
        "none": block_width(model),
    }
    return kept[rematerialise]


def block_width(model: ModelConfig) -> int:
    """Returns roughly how many numbers a token a block computes on the way."""
    return 4 * model.width + 2 * model.heads * model.head_size + 3 * model.mlp_width


def decode_copy_bytes(model: ModelConfig, mesh: Mesh, dtype: jnp.dtype) -> int:
    """Returns the bytes a device of the weights that the sampler decodes with."""
    shapes, specs = abstract_params(model, unrolled=True)
    cast = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype if leaf.ndim > 1 else leaf.dtype),
        shapes,
    )
    return sum(leaf_bytes(cast, tree_shardings(mesh, specs, DECODE_RULES)))


def cache_bytes(model: ModelConfig, sampler: SamplerSettings, mesh: Mesh) -> dict[str, int]:
    """Returns the bytes a device of the slots' and the prompts' keys and values."""
    sampler = chosen(mesh, sampler, model.head_size)
    prompts = sampler.prefill_prompts, sampler.max_prompt_tokens
    prefixes = partial(empty_cache, model, *prompts, jnp.dtype(sampler.dtype))

    def size(empty: Callable[[], KVCache], axes: tuple[str, ...]) -> int:
        shapes, layout = jax.eval_shape(empty), named_sharding(mesh, *axes)
        return sum(leaf_bytes(shapes, jax.tree.map(lambda _: layout, shapes)))

    cache = slots_cache(model, sampler, batch_shards(mesh))
    return {
        "KV cache": size(cache, cache_axes(sampler)),
        "prefix cache": size(prefixes, CACHE_AXES),
    }


def decoding_bytes(model: ModelConfig, sampler: SamplerSettings, mesh: Mesh) -> dict[str, int]:
    """Returns the bytes a device that decoding works in: the part of a contiguous cache that a
    chunk reads, or a layer's pages side by side; logits before and after the filters. On CPU, XLA
    computes bfloat16 products in float32, from a copy of every matrix.
    """
    sampler = chosen(mesh, sampler, model.head_size)
    if sampler.cache == "contiguous":
        room = cache_bytes(model, sampler, mesh)["KV cache"]
    else:  # also the prefix cache, which admission gathers
        whole = dataclasses.replace(sampler, cache="contiguous")
        a_layer = cache_bytes(model, whole, mesh)["KV cache"] // model.layers
        prefixes = cache_bytes(model, sampler, mesh)["prefix cache"] * batch_shards(mesh)
        room = max(a_layer if sampler.attention == "xla" else 0, prefixes)
    slots = sampler.slots // batch_shards(mesh)
    room += 4 * 4 * slots * model.vocab_size // mesh.shape["tensor"]
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    copied = on_cpu and jnp.dtype(sampler.dtype) != jnp.float32
    return {
        "working room of decoding": room,
        "a float32 copy for the CPU": (
            decode_copy_bytes(model, mesh, jnp.dtype(jnp.float32)) if copied else 0
        ),
    }


def with_pages(
    sampler: SamplerSettings,
    model: ModelConfig,
    mesh: Mesh,
    capacity: float | None,
    need: Callable[[SamplerSettings], MemoryNeed],
) -> SamplerSettings:
    """Returns settings without "auto"s. If a paged cache has no number of pages, it gets as many as
    its slots can fill, or as have room: SHARE of a device's memory is not exceeded. Every host
    finds the same number.

    Args:
      capacity: bytes of a device; None: no limit.
      need: of a command with such a sampler.
    """
    sampler = chosen(mesh, sampler, model.head_size)
    if sampler.cache != "paged" or sampler.pages or capacity is None:
        return sampler
    shards = batch_shards(mesh)
    sampler.check(mesh)
    fewest, twice = (
        dataclasses.replace(sampler, pages=times * shards * sampler.pages_of_slot)
        for times in (1, 2)
    )
    caches = [cache_bytes(model, one, mesh)["KV cache"] for one in (fewest, twice)]
    a_page = (caches[1] - caches[0]) / sampler.pages_of_slot
    more = int(max(SHARE * capacity - need(fewest).total, 0) / a_page)
    pages = min(sampler.pages_of_slot + more, sampler.pool(shards))
    return dataclasses.replace(sampler, pages=shards * pages)


def evaluation_sampler(sampler: SamplerSettings, model: ModelConfig, mesh: Mesh) -> SamplerSettings:
    """Returns an evaluation's settings of the sampler as the devices get them."""
    need = partial(evaluation_need, model, mesh=mesh)
    return with_pages(sampler, model, mesh, device_memory(mesh), need)


def device_memory(mesh: Mesh) -> int | None:
    """Returns the bytes of a device; None on CPU and where they are not known."""
    first = local_devices(mesh)[0]
    stats = None if first.platform == "cpu" else first.memory_stats()
    return stats["bytes_limit"] if stats and "bytes_limit" in stats else None


def leaf_bytes(shapes: Any, shardings: Any) -> list[int]:
    """Returns the bytes a device of each leaf, from trees of shapes and of layouts."""
    return [
        math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf, sharding in zip(jax.tree.leaves(shapes), jax.tree.leaves(shardings), strict=True)
    ]


def available_memory(mesh: Mesh) -> tuple[int, int] | None:
    """Returns the free bytes and how many devices of this process share them: on CPU the memory of
    the machine or its container, elsewhere that of the fullest device. None if unknown.
    """
    local = local_devices(mesh)
    if local[0].platform == "cpu":
        return min([psutil.virtual_memory().available, *container_memory(CGROUP)]), len(local)
    stats = [one.memory_stats() for one in local]
    if not all(one and "bytes_limit" in one for one in stats):
        return None
    return min(one["bytes_limit"] - one.get("bytes_in_use", 0) for one in stats), 1


def container_memory(folder: Path) -> list[int]:
    """Returns the bytes that the limit of a control group leaves; empty without a limit."""
    try:
        limit = (folder / "memory.max").read_text().strip()
        if limit == "max":
            return []
        used = int((folder / "memory.current").read_text())
        fields = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except OSError:
        return []
    return [int(limit) - used + int(fields["inactive_file"])]  # cached files give way


def check_memory(need: MemoryNeed, mesh: Mesh) -> str:
    """Returns the need and the available memory in words.

    Raises:
      ValueError: there is less. The line says what takes how much.
    """
    found = available_memory(mesh)
    if found is None:
        return f"memory: about {need.describe(1)} a device"
    free, devices = found
    place = "in all" if mesh.devices.flat[0].platform == "cpu" else "a device"
    if devices * need.total > free:
        raise ValueError(
            f"this needs about {need.describe(devices)} of memory {place}, and "
            f"{free / GB:.3g} GB are free: lower sampler.slots, sampler.max_completion_tokens or "
            "the rows of a micro-batch, or use more devices (config.mesh), a machine with more "
            "memory or a smaller model"
        )
    return f"memory: about {need.describe(devices)} {place}; {free / GB:.3g} GB are free"
