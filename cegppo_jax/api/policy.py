"""A language model by hand: sample from it, look at its log-probs, update it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from transformers import PreTrainedTokenizerBase

from cegppo_jax.api.losses import Stats, method_of, numbers_of
from cegppo_jax.api.samples import Batch, Samples, shape_of
from cegppo_jax.data.ends import find_ends
from cegppo_jax.data.prompts import render_evaluation_prompts, render_prompt
from cegppo_jax.data.tokenizer import build_character_tokenizer, completion_text, load_tokenizer
from cegppo_jax.learner.learner import Learner, make_learner
from cegppo_jax.learner.optimizer import OptimizerSettings
from cegppo_jax.learner.train_state import TrainState
from cegppo_jax.learner.update import BatchNeeds, ForwardSettings, microbatch_statistics
from cegppo_jax.losses.policy_loss import OldStatistics, make_policy_loss
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import Params, init_params
from cegppo_jax.models.pretrained.open import open_pretrained
from cegppo_jax.packing import PackedBatch, pack
from cegppo_jax.run.saved_model import is_run, open_run_model
from cegppo_jax.sampling.filters import SamplingFilter
from cegppo_jax.sampling.sampler import Sampler
from cegppo_jax.sampling.settings import SamplerSettings
from cegppo_jax.sharding import MeshShape, batch_shards, make_mesh
from cegppo_jax.types import Completion, Problem

PROMPT_MULTIPLE = 16  # the sampler is compiled for prompts of a multiple of this many tokens
MOST_SLOTS = 64  # completions decoded at once


@dataclasses.dataclass(frozen=True)
class Policy:
    """A model and its tokenizer. Methods return new policies; this one stays as it is."""

    params: Params  # float32, stacked layers, on the mesh
    model: ModelConfig
    tokenizer: PreTrainedTokenizerBase
    eos_ids: tuple[int, ...]
    mesh: Mesh
    dtype: str  # of activations; log-probs and losses are float32
    optimizer_state: Any = None  # None before the first update
    updates: int = 0
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)  # of the last update

    def sample(
        self,
        texts: Sequence[str],
        samples: int = 4,
        *,
        max_tokens: int = 128,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int = 0,
        system_prompt: str | None = None,
        instruction: str = "",
    ) -> Samples:
        """Samples completions of user messages, rendered by the tokenizer's chat template.

        Args:
          texts: P user messages.
          samples: G completions of each.
          max_tokens: limit of a completion.
          seed: the same seed draws the same completions.

        Raises:
          ValueError: a text that the tokenizer or its template cannot take.
        """
        problems = [Problem(str(i), text, "", "by hand") for i, text in enumerate(texts)]
        longest = max(
            len(render_prompt(problem, self.tokenizer, system_prompt, instruction))
            for problem in problems
        )
        room = -(-longest // PROMPT_MULTIPLE) * PROMPT_MULTIPLE
        prompts = render_evaluation_prompts(
            problems, self.tokenizer, system_prompt, room, instruction
        )
        shards = batch_shards(self.mesh)
        slots = -(-min(MOST_SLOTS, len(texts) * samples) // shards) * shards
        settings = SamplerSettings(
            slots=slots,
            prefill_prompts=shards,
            max_prompt_tokens=room,
            max_completion_tokens=max_tokens,
            chunk_steps=8,
            cache_read_ladder=(),
            dtype=self.dtype,
        )
        sampler = _sampler(self.mesh, self.model, settings, self.eos_ids)
        with jax.set_mesh(self.mesh):
            found = {
                (one.prompt_index, one.sample_index): one
                for one in sampler.sample(
                    self.params,
                    prompts,
                    samples,
                    sampling=SamplingFilter(temperature, top_k, top_p),
                    key=jax.random.key(seed),
                    policy_version=self.updates,
                )
            }
        completions = tuple(
            tuple(found[prompt.index, sample] for sample in range(samples)) for prompt in prompts
        )
        return Samples(
            prompts=tuple(prompts),
            completions=completions,
            texts=tuple(tuple(map(self._text, group)) for group in completions),
            temperature=temperature,
            max_tokens=max_tokens,
        )

    def _text(self, completion: Completion) -> str:
        return completion_text(completion, self.tokenizer)

    def logprobs(self, data: Samples | Batch) -> Stats:
        """Returns log-probability, entropy and entropy slope of every completion token, at the
        temperature that the samples were drawn at.
        """
        samples = data.samples if isinstance(data, Batch) else data
        if isinstance(data, Batch):
            packed = data.packed
        else:
            sequences = samples.sequences()
            packed = pack(sequences, shape_of(sequences, rows=8))
        forward = self._forward(samples.temperature, packed.tokens.shape[-1])
        with jax.set_mesh(self.mesh):
            used = [
                _microbatch(self.params, packed, np.int32(index), self.model, forward)
                for index in range(int(packed.num_microbatches))
            ]
        empty = packed.tokens.shape[0] - len(used)
        stacked = jax.tree.map(
            lambda *parts: np.stack([*parts, *[np.zeros_like(parts[0])] * empty]),
            *map(jax.device_get, used),
        )
        return Stats(stacked, packed)

    def update(
        self,
        batch: Batch,
        method: str = "ce_gppo",
        *,
        old: Stats | None = None,
        learning_rate: float = 1e-6,
        wrappers: Sequence[str] = (),
        **numbers: float,
    ) -> Policy:
        """Takes one AdamW update and returns the policy after it, with `metrics`. This policy keeps
        its parameters, so both are in memory.

        Args:
          method: a name in SURROGATES, or "package.module:METHOD".
          old: statistics of the policy before a step's first update; None: of this policy.
          wrappers: names in WRAPPERS, the first innermost.
          numbers: of the method and its wrappers: beta_low, beta_high, clip_low, ...
        """
        chosen = method_of(method, wrappers)
        optimizer = dataclasses.replace(ADAMW, learning_rate=learning_rate)
        forward = self._forward(batch.samples.temperature, batch.packed.tokens.shape[-1])
        learner = _learner(self.mesh, self.model, forward, optimizer, method, tuple(wrappers))
        before = self.logprobs(batch) if old is None else old
        statistics = OldStatistics(before.packed.logprobs, before.packed.entropy, None)
        with jax.set_mesh(self.mesh):
            params = jax.tree.map(jnp.copy, self.params)  # the update takes its state's memory
            state = learner.fresh_state(params)
            if self.optimizer_state is not None:
                kept = jax.tree.map(jnp.copy, self.optimizer_state)
                state = dataclasses.replace(state, optimizer_state=kept)
            state, reductions = learner.update(
                state, batch.packed, statistics, numbers_of(chosen, numbers)
            )
        metrics = {name: one.result() for name, one in jax.device_get(reductions).items()}
        return self._after(state, metrics)

    def _after(self, state: TrainState, metrics: dict[str, float]) -> Policy:
        return dataclasses.replace(
            self,
            params=state.params,
            optimizer_state=state.optimizer_state,
            updates=self.updates + 1,
            metrics=metrics,
        )

    def _forward(self, temperature: float, row_tokens: int) -> ForwardSettings:
        return ForwardSettings(
            dtype=self.dtype,
            rematerialise=False,
            scan_unroll=1,
            temperature=temperature,
            logprob_chunk_tokens=row_tokens,
            differentiate_entropy=True,
        )


ADAMW = OptimizerSettings(
    learning_rate=1e-6,
    warmup_steps=0,
    warmup_starts_at_zero=False,
    schedule="constant",
    decay_steps=0,
    beta1=0.9,
    beta2=0.999,
    epsilon=1e-8,
    weight_decay=0.0,
    decay_norms_and_embeddings=False,
    max_grad_norm=1.0,
)


@functools.cache
def _sampler(
    mesh: Mesh, model: ModelConfig, settings: SamplerSettings, eos_ids: tuple[int, ...]
) -> Sampler:
    with jax.set_mesh(mesh):
        return Sampler(mesh, model, settings, eos_ids)


@functools.partial(jax.jit, static_argnames=("model", "forward"))
def _microbatch(
    params: Params,
    batch: PackedBatch,
    index: jax.Array,
    model: ModelConfig,
    forward: ForwardSettings,
) -> Any:
    return microbatch_statistics(params, batch, index, model, forward)


@functools.cache
def _learner(
    mesh: Mesh,
    model: ModelConfig,
    forward: ForwardSettings,
    optimizer: OptimizerSettings,
    method: str,
    wrappers: tuple[str, ...],
) -> Learner:
    chosen = method_of(method, wrappers)
    loss = make_policy_loss(chosen, None, "half")
    needs = BatchNeeds(chosen.selections, chosen.draws, seed=0)
    return make_learner(mesh, model, forward, optimizer, loss, needs)


def load(name: str | Path, *, dtype: str = "float32", mesh: Mesh | None = None) -> Policy:
    """Loads a policy.

    Args:
      name: a Hugging Face id or folder, a .gguf file, "package:<name>" of an installed package, or
        the directory of a run (its newest checkpoint).
      dtype: of activations: "bfloat16" on TPU.
      mesh: where it computes; None: data-parallel over all devices.

    Raises:
      ValueError: it is not there, not whole, or of a kind that is not supported.
    """
    mesh = make_mesh(MeshShape(-1, 1, 1)) if mesh is None else mesh
    if is_run(Path(name)):
        run = open_run_model(Path(name), None)
        tokenizer = load_tokenizer(run.tokenizer)
        return Policy(run.load(mesh), run.model, tokenizer, run.eos_ids, mesh, dtype)
    pretrained = open_pretrained(str(name))
    tokenizer = load_tokenizer(str(name))
    ends = find_ends(tokenizer, pretrained.eos_ids, ()).ids
    return Policy(pretrained.load(mesh), pretrained.model, tokenizer, ends, mesh, dtype)


def random_policy(
    alphabet: str = "0123456789+-*=;#",
    *,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    seed: int = 0,
    mesh: Mesh | None = None,
) -> Policy:
    """Returns a small decoder with random weights and a token for each character of `alphabet`."""
    mesh = make_mesh(MeshShape(-1, 1, 1)) if mesh is None else mesh
    tokenizer = build_character_tokenizer(alphabet)
    model = ModelConfig(
        vocab_size=len(tokenizer),
        width=width,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_size=width // heads,
        mlp_width=4 * width,
        rope_theta=10_000.0,
        norm_epsilon=1e-6,
        tied_embeddings=True,
    )
    with jax.set_mesh(mesh):
        params = jax.jit(init_params, static_argnums=0)(model, jax.random.key(seed))
    return Policy(params, model, tokenizer, find_ends(tokenizer, (), ()).ids, mesh, "float32")
