"""Completions in a notebook, each token in the colour of what the policy finds there."""

from __future__ import annotations

import dataclasses

import numpy as np

from cegppo_jax.api.losses import Stats
from cegppo_jax.api.policy import Policy
from cegppo_jax.api.samples import Batch, Samples
from cegppo_jax.data.tokenizer import token_texts
from cegppo_jax.page.tokens import STYLE, ColouredTokens, coloured_tokens, escaped, legend


@dataclasses.dataclass(frozen=True)
class Shown:
    """HTML that a notebook shows."""

    html: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return f"Shown({len(self.html):,} characters of HTML)"


def show(
    policy: Policy,
    data: Samples | Batch,
    by: str = "entropy",
    *,
    stats: Stats | None = None,
    most: int = 8,
) -> Shown:
    """Shows completions with their tokens coloured by what a policy says of them. A token's tooltip
    has its numbers.

    Args:
      data: samples, or a batch, which also has rewards and advantages.
      by: "entropy"; "log_ratio", this policy against the one that sampled; or "quadrant", the sign
        of the advantage and whether the token is likely, which needs a batch.
      stats: policy.logprobs(data), where they are there already.
      most: completions that are shown; some of every prompt, as far as they reach.

    Raises:
      ValueError: no such colouring, quadrants without a batch, statistics of other samples, or
        greedy samples without statistics.
    """
    batch = data if isinstance(data, Batch) else None
    samples = data.samples if isinstance(data, Batch) else data
    if by == "quadrant" and batch is None:
        raise ValueError('by = "quadrant" needs advantages: show a batch, cg.batch(out, rewards)')
    head = f"<style>{STYLE}</style>{legend(by)}"
    stats = policy.logprobs(samples) if stats is None else stats
    if [len(one) for one in stats.logprobs] != samples.lengths.ravel().tolist():
        raise ValueError("the statistics are of other samples: take policy.logprobs of these")
    places = sorted(np.ndindex(samples.shape), key=lambda place: (place[1], place[0]))[:most]
    blocks = [_block(policy, samples, batch, stats, by, *place) for place in sorted(places)]
    return Shown(head + "".join(blocks))


def _block(
    policy: Policy,
    samples: Samples,
    batch: Batch | None,
    stats: Stats,
    by: str,
    prompt: int,
    sample: int,
) -> str:
    completion = samples.completions[prompt][sample]
    place = prompt * samples.shape[1] + sample
    log_ratios = np.asarray(stats.logprobs[place]) - completion.sampler_logprobs
    sampled = bool(np.isfinite(log_ratios).all())  # and not written by hand
    tokens = ColouredTokens(
        token_texts(policy.tokenizer, completion.tokens.tolist()),
        np.asarray(stats.logprobs[place]).tolist(),
        np.asarray(stats.entropy[place]).tolist(),
        log_ratios.tolist() if sampled else (),
        0.0 if batch is None else float(batch.advantages[prompt, sample]),
    )
    caption = escaped(samples.prompts[prompt].problem.problem)
    if batch is not None:
        caption += f" &nbsp; <i>reward {batch.rewards[prompt, sample]:g}</i>"
    return f'<div style="margin:0.5em 0"><b>{caption}</b>{coloured_tokens(tokens, by)}</div>'
