"""The sampler's device state and its three jitted moves: prefill, admit, decode a chunk.

A slot decodes one completion at a time. The last prompt token is a slot's first decode input, so
prefill needs no head and every completion token is drawn by the same code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from cegppo_jax.losses.logprobs import mask_unused
from cegppo_jax.models.attention.mask import Mask, PageTable, SegmentMask
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import (
    Decoder,
    Params,
    output_head,
    run_decoder,
)
from cegppo_jax.models.kv_cache import KVCache
from cegppo_jax.sampling.filters import SamplingFilter, draw_token, filter_logits
from cegppo_jax.sampling.page_copies import PageCopies, copy_pages
from cegppo_jax.sharding import Leaf, constrain


@flax.struct.dataclass
class SlotState:
    """S decode slots.

    Worked example, prompt "a b c" (3 tokens), completion so far "d e": the cache holds a b c d at
    0..3; last_token is e at position 4, which the next step writes to the cache and uses to compute
    the next distribution; completion_tokens is 2.
    """

    cache: KVCache
    last_tokens: Leaf  # [S] int32, the next decode input
    positions: Leaf  # [S] int32, its position in prompt + completion
    completion_tokens: Leaf  # [S] int32, drawn so far: the counter of the token's key
    token_limits: Leaf  # [S] int32, completion tokens at most
    active: Leaf  # [S] bool
    # [S, 2] uint32, key data of each slot's sample. Not typed keys: their layouts alternate between
    # two spellings of one sharding, and each spelling would be compiled for.
    key_data: Leaf


@flax.struct.dataclass
class Admissions:
    """Which slots take which sample; [S] each, read where `source` >= 0."""

    source: Leaf  # int32, row of the prefix cache; -1 leaves the slot alone
    last_prompt_tokens: Leaf  # int32
    prompt_tokens: Leaf  # int32, prompt lengths
    token_limits: Leaf  # int32
    prompt_indices: Leaf  # int32
    sample_indices: Leaf  # int32


@flax.struct.dataclass
class Chunk:
    """What a chunk of n decode steps drew, [n, S]. A slot's tokens are a prefix of its column."""

    tokens: Leaf  # int32
    logprobs: Leaf  # float32
    counts: Leaf  # [S] int32, the length of that prefix
    active: Leaf  # [S] bool after the chunk
    ended_by_eos: Leaf  # [S] bool


def prefill(
    params: Params, tokens: jax.Array, *, model: ModelConfig, dtype: jnp.dtype, attention: str
) -> KVCache:
    """Returns the prefix cache [B, K, Tp, H] of each layer for right-padded prompts [B, Tp].

    Padding is written too but never read: a slot reads only up to its position, and decoding
    overwrites the rest.
    """
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    mask = SegmentMask(jnp.ones_like(tokens))
    decoder = Decoder(model, dtype, unrolled=True, attention=attention)
    return run_decoder(decoder, params, tokens, positions, mask)[1]


def empty_slots(slots: int, empty: Callable[[], KVCache]) -> SlotState:
    """Returns `slots` idle slots on a cache that `empty` makes."""
    zeros = jnp.zeros(slots, jnp.int32)
    return SlotState(
        cache=empty(),
        last_tokens=zeros,
        positions=zeros,
        completion_tokens=zeros,
        token_limits=zeros,
        active=jnp.zeros(slots, bool),
        key_data=jnp.zeros((slots, 2), jnp.uint32),
    )


def admit(
    state: SlotState,
    prefixes: KVCache,
    admissions: Admissions,
    step_key: jax.Array,
    copies: PageCopies | None = None,
) -> SlotState:
    """Returns the slots with the new samples ready to decode.

    A sample's key is fold_in(fold_in(step_key, prompt), sample): it depends on neither its slot nor
    the time.

    Args:
      copies: what comes to which pages, if the cache is paged.
    """
    new = admissions.source >= 0
    rows = jnp.maximum(admissions.source, 0)

    def take(slots: jax.Array, prefix: jax.Array) -> jax.Array:
        length = prefix.shape[2]
        kept = jnp.where(new[:, None, None, None], prefix[rows], slots[:, :, :length])
        return jax.lax.dynamic_update_slice_in_dim(slots, kept, 0, axis=2)

    if copies is None:
        cache: KVCache = jax.tree.map(take, state.cache, prefixes)
    else:
        cache = copy_pages(state.cache, prefixes, copies)
    sample_keys = jax.vmap(
        lambda prompt, sample: jax.random.fold_in(jax.random.fold_in(step_key, prompt), sample)
    )(admissions.prompt_indices, admissions.sample_indices)
    return SlotState(
        cache=cache,
        last_tokens=jnp.where(new, admissions.last_prompt_tokens, state.last_tokens),
        positions=jnp.where(new, admissions.prompt_tokens - 1, state.positions),
        completion_tokens=jnp.where(new, 0, state.completion_tokens),
        token_limits=jnp.where(new, admissions.token_limits, state.token_limits),
        active=state.active | new,
        key_data=jnp.where(new[:, None], jax.random.key_data(sample_keys), state.key_data),
    )


def narrow(slots: Leaf, order: jax.Array) -> Leaf:
    """Returns the slots of `order` [s] int32, in that order: of a record or an array of S slots."""
    return jax.tree.map(lambda leaf: leaf[order], slots)


def reach(state: SlotState, length: int, table: jax.Array | None) -> Mask:
    """Returns what each slot's next step sees: the first `length` places of its cache, up to its
    position. table: as in decode_chunk.
    """
    if table is not None:
        return PageTable(table, state.positions, state.active, length)
    return jnp.arange(length)[None, None, :] <= state.positions[:, None, None]


def draw_next(
    decoder: Decoder, params: Params, state: SlotState, mask: Mask, sampling: SamplingFilter
) -> tuple[KVCache, jax.Array, jax.Array]:
    """Returns the cache with each slot's last token written, the next tokens [S] int32 and their
    log-probabilities [S] float32 under the filtered distribution.

    A token's key is fold_in(sample key, number of tokens drawn before it).
    """
    tokens, positions = state.last_tokens[:, None], state.positions[:, None]
    hidden, cache = run_decoder(decoder, params, tokens, positions, mask, state.cache)
    head = output_head(params)
    logits = jnp.einsum("sd,dv->sv", hidden[:, 0], head, preferred_element_type=jnp.float32)
    logits = mask_unused(constrain(logits, "slots", "vocab"), decoder.config.unused_ids)
    logits = filter_logits(logits, sampling)
    sample_keys = jax.random.wrap_key_data(state.key_data)
    token_keys = jax.vmap(jax.random.fold_in)(sample_keys, state.completion_tokens)
    return cache, *draw_token(logits, jax.vmap(jax.random.uniform)(token_keys))


def advance(
    state: SlotState,
    chunk: Chunk,
    step: jax.Array,
    tokens: jax.Array,
    logprobs: jax.Array,
    eos: jax.Array,
) -> tuple[SlotState, Chunk]:
    """Returns the slots after a step of the chunk, with the tokens [S] that they drew and ended
    where these end them (the cache is unchanged), and the chunk with that step.
    """
    completion_tokens = state.completion_tokens + state.active
    is_eos = jnp.any(tokens[:, None] == eos[None, :], axis=-1) & state.active
    active = state.active & ~is_eos & (completion_tokens < state.token_limits)
    chunk = Chunk(
        tokens=chunk.tokens.at[step].set(tokens),
        logprobs=chunk.logprobs.at[step].set(logprobs),
        counts=chunk.counts + state.active,
        active=active,
        ended_by_eos=chunk.ended_by_eos | is_eos,
    )
    # An idle slot keeps its position, which stays inside the cache, and rewrites a place that is
    # never read.
    state = dataclasses.replace(
        state,
        last_tokens=jnp.where(active, tokens, state.last_tokens),
        positions=jnp.where(active, state.positions + 1, state.positions),
        completion_tokens=completion_tokens,
        active=active,
    )
    return state, chunk


def empty_chunk(steps: int, active: jax.Array) -> Chunk:
    """Returns a chunk of `steps` steps in which nothing has been drawn; `active` [S] says which
    slots are active.
    """
    shape = (steps, active.shape[0])
    return Chunk(
        tokens=jnp.zeros(shape, jnp.int32),
        logprobs=jnp.zeros(shape, jnp.float32),
        counts=jnp.zeros(shape[1], jnp.int32),
        active=active,
        ended_by_eos=jnp.zeros(shape[1], bool),
    )


def decode_chunk(
    params: Params,
    state: SlotState,
    min_active: jax.Array,
    sampling: SamplingFilter,
    read_length: int,
    table: jax.Array | None = None,
    *,
    model: ModelConfig,
    dtype: jnp.dtype,
    attention: str,
    eos_ids: tuple[int, ...],
    steps: int,
) -> tuple[SlotState, Chunk]:
    """Returns the slots [S] up to `steps` tokens further, and what was drawn, [steps, S].

    Stops early once no more than `min_active` slots ([] int32, traced) are still active: the host
    then has enough free slots to admit waiting samples, or everything is done. The cache is read up
    to `read_length`, which the host knows to lie beyond every active position of the chunk.

    Args:
      table: if the cache is paged, the pages [S, n] int32 of each slot's places in its shard; a
        slot that has none, 0, is idle.
    """
    decoder = Decoder(model, dtype, unrolled=True, attention=attention)
    eos = jnp.asarray(eos_ids, jnp.int32)
    whole = state.cache
    if table is None:
        # Cut once a chunk, not once a step: a slice that feeds a matrix product is a copy.
        cut: KVCache = jax.tree.map(lambda x: x[:, :, :read_length], whole)
        state = dataclasses.replace(state, cache=cut)
    else:
        table = table[:, : -(-read_length // whole[0].keys.shape[2])]
        state = dataclasses.replace(state, active=state.active & (table[:, 0] > 0))

    def go_on(carry: tuple[jax.Array, SlotState, Chunk]) -> jax.Array:
        step, state, _ = carry
        return (step < steps) & (jnp.sum(state.active) > min_active)

    def body(carry: tuple[jax.Array, SlotState, Chunk]) -> tuple[jax.Array, SlotState, Chunk]:
        step, state, chunk = carry
        seen = reach(state, read_length, table)
        cache, tokens, logprobs = draw_next(decoder, params, state, seen, sampling)
        state, chunk = advance(state, chunk, step, tokens, logprobs, eos)
        return step + 1, dataclasses.replace(state, cache=cache), chunk

    start = jnp.int32(0), state, empty_chunk(steps, state.active)
    _, state, chunk = jax.lax.while_loop(go_on, body, start)
    if table is None:
        restored = jax.tree.map(
            lambda cache, part: jax.lax.dynamic_update_slice_in_dim(cache, part, 0, axis=2),
            whole,
            state.cache,
        )
        state = dataclasses.replace(state, cache=restored)
    return state, chunk
