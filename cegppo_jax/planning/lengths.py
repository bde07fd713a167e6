"""How long prompts and completions of a step are taken to be, and what a rollout of them asks of
the sampler and of the trainer.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
from scipy.special import ndtri

from cegppo_jax.models.attention.paged import PAGES_OF_BLOCK
from cegppo_jax.reporting.metrics import METRICS_FILE_NAME, Phase, read_metrics
from cegppo_jax.row_filling import first_fit, first_fit_sharing
from cegppo_jax.run.settings import RunSettings
from cegppo_jax.sampling.settings import SamplerSettings
from cegppo_jax.storage.bucket import in_bucket, local_copy
from cegppo_jax.storage.paths import local_path

PROMPT = 256  # tokens, or the limit if that is lower
SIGMA = 0.6  # of a lognormal distribution that names none
LAST_STEPS = 10  # of a run's metrics
LENGTH_METRIC = "rollout/completion_tokens_mean"


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Tokens of the completions and prompts of one step."""

    words: str  # what they are taken to be
    completions: np.ndarray  # [P * G] int64, in the order in which they are asked for
    prompt: int  # of every prompt

    @property
    def sequences(self) -> np.ndarray:
        """Prompt and completion together, [P * G]."""
        return self.completions + self.prompt


def plan_lengths(text: str, prompt_tokens: int | None, settings: RunSettings) -> Lengths:
    """Returns a step's lengths, always the same.

    Args:
      text: "lognormal:MEAN[:SIGMA]", "constant:TOKENS", or a run's directory or metrics.jsonl, of
        whose last steps the mean is taken; "": lognormal with a third of the limit as its mean.
      prompt_tokens: of every prompt; None: PROMPT.

    Raises:
      ValueError: the text is none of these, or a number is out of range.
    """
    limit, batch = settings.sampler.max_completion_tokens, settings.batch
    prompt = min(
        settings.sampler.max_prompt_tokens, PROMPT if prompt_tokens is None else prompt_tokens
    )
    if prompt_tokens is not None and not 1 <= prompt_tokens <= settings.sampler.max_prompt_tokens:
        raise ValueError(
            f"--prompt_tokens={prompt_tokens}: give 1 to sampler.max_prompt_tokens = "
            f"{settings.sampler.max_prompt_tokens}"
        )
    kind, mean, sigma = _distribution(text, limit)
    if not 1 <= mean <= limit or not 0 <= sigma <= 3:
        raise ValueError(
            f"--lengths={text}: a mean of {mean:g} tokens and a sigma of {sigma:g}; the mean must "
            f"lie between 1 and the limit of {limit}, sigma between 0 and 3"
        )
    count = max(batch.prompts, batch.trained_prompts) * batch.samples_per_prompt
    completions = _lognormal(mean, sigma, limit, count)
    words = (
        f"{count:,} completions, {kind}, mean {completions.mean():,.0f} tokens, at most "
        f"{completions.max():,} (limit {limit:,}); prompts of {prompt}"
    )
    return Lengths(words, completions, prompt)


def _lognormal(mean: float, sigma: float, limit: int, count: int) -> np.ndarray:
    """Returns so many lengths, evenly over the quantiles of the distribution and in a fixed random
    order, whose mean is the one asked for after the limit has cut them.
    """
    quantiles = (np.arange(count) + 0.5) / count
    shape = np.random.default_rng(0).permutation(np.exp(sigma * ndtri(quantiles)))

    def lengths(scale: float) -> np.ndarray:
        return np.clip(np.rint(scale * shape), 1, limit)

    low, high = 0.0, float(limit / shape.min())
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if lengths(middle).mean() < mean else (low, middle)
    return lengths(high).astype(np.int64)


def _distribution(text: str, limit: int) -> tuple[str, float, float]:
    """Returns words, mean, and sigma of the logarithm before the limit cuts."""
    if found := re.fullmatch(r"constant:(\d+)", text):
        return "all of one length", float(found[1]), 0.0
    if found := re.fullmatch(r"lognormal:(\d+)(?::(\d+(?:\.\d+)?|\.\d+))?", text):
        sigma = float(found[2]) if found[2] else SIGMA
        return f"lognormal of sigma {sigma:g}", float(found[1]), sigma
    if not text:
        return f"lognormal of sigma {SIGMA:g}", max(limit / 3, 1.0), SIGMA
    path = _metrics_file(text)
    if not path.is_file() or path.name != METRICS_FILE_NAME:
        raise ValueError(
            f"--lengths={text}: give lognormal:MEAN, lognormal:MEAN:SIGMA, constant:TOKENS, or a "
            f"run's directory or its {METRICS_FILE_NAME}"
        )
    mean = _mean_of_run(path)
    return f"lognormal of sigma {SIGMA:g} around the mean of {path}", mean, SIGMA


def _metrics_file(text: str) -> Path:
    """Returns the path of a run's metrics, copied here if they are in a bucket."""
    if in_bucket(text):
        url = text.rstrip("/").removesuffix(f"/{METRICS_FILE_NAME}")
        return local_copy("--lengths", f"{url}/{METRICS_FILE_NAME}", ())
    path = local_path("--lengths", text)
    return path / METRICS_FILE_NAME if path.is_dir() else path


def _mean_of_run(path: Path) -> float:
    lines = [line for line in read_metrics(path.parent) if line.get("phase") == Phase.RL]
    means = [line[LENGTH_METRIC] for line in lines if line.get(LENGTH_METRIC) is not None]
    if not means:
        raise ValueError(f"--lengths: {path} has no {LENGTH_METRIC} of a step")
    return float(np.mean(means[-LAST_STEPS:]))


@dataclasses.dataclass
class RolloutWork:
    """What the sampler does in a rollout."""

    steps: Counter[int] = dataclasses.field(default_factory=Counter)  # decode steps by read length
    chunks: Counter[int] = dataclasses.field(default_factory=Counter)  # calls by read length
    admissions: int = 0
    prefills: int = 0
    live: float = 0.0  # cache places of running sequences, summed over steps
    fetched: float = 0.0  # the same in whole blocks of pages, which a paged kernel reads
    tokens: int = 0  # drawn


def rollout_work(
    lengths: Lengths, samples_per_prompt: int, sampler: SamplerSettings
) -> RolloutWork:
    """Plays the sampler's schedule through: slots, chunks, admissions and rungs."""
    work = RolloutWork(tokens=int(lengths.completions.sum()))
    todo, slots = lengths.completions, sampler.slots
    work.prefills = math.ceil(len(todo) / samples_per_prompt / sampler.prefill_prompts)
    per_prefix = sampler.prefill_prompts * samples_per_prompt
    left, drawn = np.zeros(slots, np.int64), np.zeros(slots, np.int64)
    asked, block = 0, PAGES_OF_BLOCK * sampler.page_tokens
    while asked < len(todo) or left.any():
        while asked < len(todo) and not left.all():  # one admission serves one prefix cache
            free = np.flatnonzero(left == 0)
            prefix_end = (asked // per_prefix + 1) * per_prefix
            count = min(len(free), len(todo) - asked, prefix_end - asked)
            left[free[:count]], drawn[free[:count]] = todo[asked : asked + count], 0
            asked += count
            work.admissions += 1
        running = left > 0
        furthest = lengths.prompt + int(drawn[running].max())
        needed = min(furthest + sampler.chunk_steps - 1, sampler.cache_tokens)
        read = next(rung for rung in sampler.read_lengths if rung >= needed)
        waiting = slots - max(slots // 8, 1) if asked < len(todo) else 0
        least = min(waiting, int(running.sum()) - 1)
        ends = np.sort(left[running])[::-1]
        steps = min(sampler.chunk_steps, int(ends[least]))
        taken = np.minimum(left, steps)
        places = lengths.prompt + drawn[running] + (taken[running] + 1) / 2
        work.live += float((taken[running] * places).sum())
        work.fetched += float((taken[running] * np.ceil(places / block) * block).sum())
        work.steps[read] += steps
        work.chunks[read] += 1
        left, drawn = left - taken, drawn + taken
    return work


def packed_rows(lengths: Lengths, settings: RunSettings) -> list[int]:
    """Returns the rows that each mini-batch of a step is packed into."""
    batch = settings.batch
    trained = lengths.sequences[: batch.trained_prompts * batch.samples_per_prompt]
    size = batch.minibatch_prompts * batch.samples_per_prompt
    parts = [trained[start : start + size] for start in range(0, len(trained) - size + 1, size)]
    if not batch.share_prompts:
        return [len(first_fit([int(n) for n in part], batch.row_tokens)) for part in parts]
    prompts = [(i // batch.samples_per_prompt,) * lengths.prompt for i in range(size)]
    return [
        len(first_fit_sharing(prompts, [int(n) for n in part], batch.row_tokens)) for part in parts
    ]
