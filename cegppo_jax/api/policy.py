"""A language model by hand: sample from it, look at its log-probs, update it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from transformers import PreTrainedTokenizerBase

from cegppo_jax.api.compiled import (
    ADAMW,
    by_hand_forward,
    learner_of,
    sampler_of,
    statistics_of,
)
from cegppo_jax.api.losses import Stats, choose_loss, old_statistics
from cegppo_jax.api.samples import PROMPT_MULTIPLE, Batch, Samples, round_up
from cegppo_jax.api.surrogates import AnyMethod
from cegppo_jax.data.ends import find_ends
from cegppo_jax.data.prompts import render_evaluation_prompts, render_prompt
from cegppo_jax.data.tokenizer import completion_text, encode_text
from cegppo_jax.finite import check_logprobs
from cegppo_jax.models.attention.choose import AUTO
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import Params
from cegppo_jax.packing import unpack
from cegppo_jax.run.checks import check_model_fits
from cegppo_jax.sampling.filters import SamplingFilter
from cegppo_jax.sampling.settings import SamplerSettings
from cegppo_jax.sharding import batch_shards
from cegppo_jax.types import Completion, Problem, Prompt, StopReason

FEWEST_SLOTS, MOST_SLOTS = 8, 64  # completions decoded at once
WHOLE = SamplingFilter(temperature=1.0, top_k=0, top_p=1.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Policy:
    """A model and its tokenizer. `load` and `random_policy` make one; `update` returns a new one
    and leaves this one as it is.
    """

    params: Params  # float32, stacked layers, on the mesh
    model: ModelConfig
    tokenizer: PreTrainedTokenizerBase
    eos_ids: tuple[int, ...]
    mesh: Mesh
    dtype: str  # of activations; log-probs and losses are float32
    optimizer_state: Any = None  # None before the first update
    updates: int = 0
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)  # of the last update

    def __repr__(self) -> str:
        size = sum(leaf.size for leaf in jax.tree.leaves(self.params))
        model = self.model
        by_hand = f"; {self.updates} updates" if self.updates else ""  # a run's are not known here
        return (
            f"Policy({size:,} parameters: {model.layers} layers of width {model.width}, "
            f"{model.vocab_size:,} tokens; {self.dtype} on {self.mesh.size} "
            f"{self.mesh.devices.flat[0].platform} device{'s' * (self.mesh.size > 1)}{by_hand})"
        )

    def sample(
        self,
        texts: str | Sequence[str],
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
        """Samples completions of user messages, rendered by the tokenizer's chat template. Another
        `max_tokens`, filter, or size of prompts (in steps of 16 tokens) compiles again.

        Args:
          texts: P user messages.
          samples: G completions of each.
          max_tokens: limit of a completion.
          temperature: 0 is greedy.
          top_p, top_k: 1 and 0 are off, as policy gradients need them.
          seed: the same seed, place and number of the sample draw the same completion.
          system_prompt: the system message, or None for none.
          instruction: text behind every message.

        Raises:
          ValueError: a text that the tokenizer or its template cannot take, or more tokens than the
            model was trained for.
        """
        if min(samples, max_tokens) < 1:
            raise ValueError(f"samples = {samples}, max_tokens = {max_tokens}: at least 1")
        sampling = SamplingFilter(temperature, top_k, top_p)
        prompts = self._prompts(texts, system_prompt, instruction)
        longest = max(len(one.tokens) for one in prompts)
        room = round_up(longest, PROMPT_MULTIPLE)
        if self.model.max_tokens is not None:
            room = max(longest, min(room, self.model.max_tokens - max_tokens))
        shards = batch_shards(self.mesh)
        wanted = 1 << (len(prompts) * samples - 1).bit_length()
        settings = SamplerSettings(
            slots=round_up(min(max(FEWEST_SLOTS, wanted), MOST_SLOTS), shards),
            prefill_prompts=shards,
            max_prompt_tokens=room,
            max_completion_tokens=max_tokens,
            chunk_steps=8,
            cache_read_ladder=(),
            slot_ladder=(),
            dtype=self.dtype,
            attention=AUTO,
            cache=AUTO,
            page_tokens=128,
            pages=0,
        )
        check_model_fits(settings, self.model, self.tokenizer, self.mesh)
        with jax.set_mesh(self.mesh):
            sampler = sampler_of(self.mesh, self.model, settings, self.eos_ids)
            draw = partial(sampler.sample, sampling=sampling, key=jax.random.key(seed))
            drawn = draw(self.params, prompts, samples, policy_version=self.updates)
            found = {(one.prompt_index, one.sample_index): one for one in drawn}
            sampler.release_copy()  # the sampler stays, for the next call
        completions = tuple(
            tuple(found[prompt.index, sample] for sample in range(samples)) for prompt in prompts
        )
        return self._samples(prompts, completions, sampling, max_tokens)

    def read(
        self,
        texts: str | Sequence[str],
        completions: Sequence[Sequence[str]],
        *,
        system_prompt: str | None = None,
        instruction: str = "",
    ) -> Samples:
        """Takes written completions as if they had been sampled, each with the token that ends it:
        to look at their log-probs, or to train on them.

        Args:
          texts: P user messages.
          completions: [P][G] texts.

        Raises:
          ValueError: a text that the tokenizer cannot take, or groups of different sizes.
        """
        prompts = self._prompts(texts, system_prompt, instruction)
        sizes = {len(group) for group in completions}
        if len(completions) != len(prompts) or len(sizes) != 1 or sizes == {0}:
            raise ValueError(
                f"{len(completions)} groups of {sorted(sizes)} completions for {len(prompts)} "
                "texts: one group each, all of one size"
            )
        end = find_ends(self.tokenizer, self.eos_ids, ()).taught

        def written(prompt: int, sample: int, text: str) -> Completion:
            owner = f"completion {sample} of text {prompt}"
            tokens = np.asarray([*encode_text(text, self.tokenizer, owner), end], np.int32)
            unknown = np.full(len(tokens), np.nan, np.float32)
            return Completion(prompt, sample, tokens, unknown, StopReason.EOS, self.updates)

        groups = tuple(
            tuple(written(prompt, sample, text) for sample, text in enumerate(group))
            for prompt, group in enumerate(completions)
        )
        longest = max(len(one.tokens) for group in groups for one in group)
        return self._samples(prompts, groups, WHOLE, longest)

    def _prompts(
        self, texts: str | Sequence[str], system_prompt: str | None, instruction: str
    ) -> list[Prompt]:
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts:
            raise ValueError("0 texts: give at least 1 to sample from")
        problems = [Problem(str(i), text, "", "by hand") for i, text in enumerate(texts)]
        longest = max(
            len(render_prompt(problem, self.tokenizer, system_prompt, instruction))
            for problem in problems
        )
        return render_evaluation_prompts(
            problems, self.tokenizer, system_prompt, longest, instruction
        )

    def _samples(
        self,
        prompts: Sequence[Prompt],
        completions: tuple[tuple[Completion, ...], ...],
        sampling: SamplingFilter,
        max_tokens: int,
    ) -> Samples:
        texts = tuple(
            tuple(completion_text(one, self.tokenizer) for one in group) for group in completions
        )
        return Samples(tuple(prompts), completions, texts, sampling, max_tokens)

    def logprobs(
        self, data: Samples | Batch, *, temperature: float | None = None, rows: int = 8
    ) -> Stats:
        """Computes log-probability, entropy and entropy slope of every completion token.

        Args:
          temperature: divides the logits; None: the one that the samples were drawn at.
          rows: sequences, or rows of short ones, in one forward pass: fewer need less memory.

        Raises:
          ValueError: the samples are greedy and no temperature is given.
          NonFiniteError: a log-probability is NaN or infinite.
        """
        samples = data.samples if isinstance(data, Batch) else data
        temperature = samples.sampling.temperature if temperature is None else temperature
        if not temperature > 0:
            raise ValueError(
                f"temperature = {temperature:g}, where log-probs mean nothing: give temperature=1.0"
            )
        packed = samples.pack(round_up(rows, batch_shards(self.mesh)))
        forward = by_hand_forward(self.dtype, temperature, entropy_bonus=False)
        one = statistics_of(self.mesh, self.model, forward)
        with jax.set_mesh(self.mesh):
            used = [
                jax.device_get(one(self.params, packed, np.int32(index)))
                for index in range(int(packed.num_microbatches))
            ]
        empty = packed.tokens.shape[0] - len(used)
        stacked = jax.tree.map(
            lambda *parts: np.stack([*parts, *[np.zeros_like(parts[0])] * empty]), *used
        )
        arrays = (stacked.logprobs, stacked.entropy, stacked.entropy_slope)
        stats = Stats(*jax.tree.map(lambda a: unpack(a, packed, samples.lengths.size), arrays))
        for place, own in enumerate(stats.logprobs):
            prompt, sample = divmod(place, samples.shape[1])
            check_logprobs(own, "trainer", str(prompt), sample, 0)
        return dataclasses.replace(stats, updates=self.updates)

    def update(
        self,
        batch: Batch,
        method: AnyMethod = "ce_gppo",
        *,
        old: Stats | None = None,
        reference: Stats | None = None,
        learning_rate: float = 1e-6,
        wrappers: Sequence[str] = (),
        rows: int = 8,
        **numbers: float,
    ) -> Policy:
        """Takes one AdamW update (no weight decay, gradient norm clipped at 1) and returns the
        policy after it, whose `metrics` say what happened.

        This policy stays in memory: 4 bytes a parameter, and 8 more for Adam's moments once it has
        been updated. The new one takes 12, and its gradient 4 while it is made.

        Args:
          method: a name in SURROGATES, "package.module:METHOD", a Method, or a function
            (SurrogateInputs, Knobs) -> SurrogateTerms.
          old: of the policy before a step's first update, old_policy.logprobs(batch), when this is
            not the first update on the samples; None: this policy's own, so that all ratios are 1.
          reference: of the reference policy, for kl_coef.
          learning_rate: another one compiles again.
          wrappers: names in WRAPPERS, the first innermost.
          rows: of a micro-batch: fewer need less memory and change nothing else.
          numbers: of the method and its wrappers: beta_low, beta_high, clip_low, ...; another value
            compiles nothing.

        Raises:
          ValueError: as of `loss`.
        """
        choice, knobs = choose_loss(method, wrappers, batch, reference, numbers)
        forward = by_hand_forward(
            self.dtype, batch.samples.sampling.temperature, bool(knobs.entropy_coef)
        )
        optimizer = dataclasses.replace(ADAMW, learning_rate=learning_rate)
        learner = learner_of(self.mesh, self.model, forward, optimizer, choice)
        packed = batch.pack(round_up(rows, batch_shards(self.mesh)))
        with jax.set_mesh(self.mesh):
            before = old_statistics(old, reference, batch, packed)
            # Copies, since the update takes its state's memory
            state = learner.fresh_state(jax.tree.map(jnp.copy, self.params))
            state = dataclasses.replace(
                state, updates=jax.device_put(np.int32(self.updates), state.updates.sharding)
            )
            if self.optimizer_state is not None:
                kept = jax.tree.map(jnp.copy, self.optimizer_state)
                state = dataclasses.replace(state, optimizer_state=kept)
            state, reductions, _ = learner.update(
                state, packed, before, knobs, np.bool_(old is None)
            )
        return dataclasses.replace(
            self,
            params=state.params,
            optimizer_state=state.optimizer_state,
            updates=self.updates + 1,
            metrics={name: one.result() for name, one in jax.device_get(reductions).items()},
        )
