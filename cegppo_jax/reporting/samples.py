"""The lines of samples.jsonl: completions with their scores, for reading.

A line of a completion that trained also has its advantage and, for its first
`logging.samples_tokens` tokens, lists with one entry a token, from before the step's first update:

    token_texts       what the token adds to the text; special tokens are spelt out
    token_logprobs    ln pi_old(token), nats, by the trainer
    token_entropies   exact entropy of pi_old there, nats
    token_log_ratios  ln pi_old(token) - ln pi_sampler(token): trainer against sampler

Runs of older versions do not have them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cegppo_jax.reporting.metrics import Phase
from cegppo_jax.storage.jsonl import read_jsonl
from cegppo_jax.types import Completion, Rollout, TokenReadings

SAMPLES_FILE_NAME = "samples.jsonl"
NUMBER_OR_NULL = (int, float, type(None))  # null: not finite
OF_TOKENS = ("token_texts", "token_logprobs", "token_entropies", "token_log_ratios")
KINDS_OF_VALUES = {
    (str,): ("id", "problem", "answer", "completion", "outcome", "stop_reason"),
    (str, type(None)): ("read", "rule"),
    (int,): ("sample", "tokens"),
    NUMBER_OR_NULL: ("reward", "advantage"),
    (list,): OF_TOKENS,
}
DIGITS = 4  # significant ones, of numbers of a token


def sample_lines(
    step: int,
    rollouts: Sequence[Rollout],
    readings: Mapping[tuple[int, int], TokenReadings],
    token_texts: Callable[[np.ndarray], list[str]],
    max_tokens: int,
) -> Iterator[dict[str, Any]]:
    """Yields one object for each completion of a step's rollouts.

    Args:
      readings: of the completions that trained, by prompt and sample index.
      token_texts: tokens [n] -> the text of each.
      max_tokens: first tokens of a completion that are written one by one.
    """
    for rollout in rollouts:
        group = zip(rollout.completions, rollout.texts, rollout.scores, strict=True)
        for completion, text, score in group:
            line = {
                "phase": Phase.RL,
                "step": step,
                "id": rollout.prompt.problem.id,
                "problem": rollout.prompt.problem.problem,
                "answer": rollout.prompt.problem.answer,
                "sample": completion.sample_index,
                "completion": text,
                "outcome": score.outcome,
                "read": score.answer,
                "rule": score.rule,
                "reward": score.reward,
                "tokens": len(completion.tokens),
                "stop_reason": completion.stop_reason,
            }
            own = readings.get((completion.prompt_index, completion.sample_index))
            if own is not None:
                line["advantage"] = own.advantage
                if max_tokens:
                    line |= token_columns(completion, own, token_texts, max_tokens)
            yield line


def token_columns(
    completion: Completion,
    readings: TokenReadings,
    token_texts: Callable[[np.ndarray], list[str]],
    max_tokens: int,
) -> dict[str, list[Any]]:
    """Returns the lists of a line, of the completion's first `max_tokens` tokens."""
    first = slice(max_tokens)
    log_rho = readings.log_rho[first]
    return {
        "token_texts": token_texts(completion.tokens[first]),
        "token_logprobs": rounded(completion.sampler_logprobs[first] + log_rho),
        "token_entropies": rounded(readings.entropies[first]),
        "token_log_ratios": rounded(log_rho),
    }


def rounded(values: np.ndarray) -> list[float | None]:
    """Rounds values [n] to DIGITS significant digits; None for what is not finite."""
    return [float(f"{one:.{DIGITS}g}") if math.isfinite(one) else None for one in values.tolist()]


def read_samples(workdir: Path) -> list[dict[str, Any]]:
    """Reads the lines of a run's samples.jsonl, in order.

    Raises:
        ValueError: for a malformed line, with its number.
    """
    return read_jsonl(workdir / SAMPLES_FILE_NAME, _checked, "a completion")


def _checked(line: dict[str, Any]) -> dict[str, Any]:
    """Returns a line whose known names have values of the right kind; an older version did not
    write all of them.
    """
    if type(line["step"]) is not int or line["phase"] != Phase.RL or "completion" not in line:
        raise ValueError(f"phase {line['phase']!r:.60}, step {line['step']!r:.60}")
    for kinds, names in KINDS_OF_VALUES.items():
        for name in names:
            if name in line and type(line[name]) not in kinds:
                raise ValueError(f"{name} = {line[name]!r:.60}")
    for name in OF_TOKENS:
        kinds = (str,) if name == "token_texts" else NUMBER_OR_NULL
        if any(type(one) not in kinds for one in line.get(name, ())):
            raise ValueError(f"{name} = {line[name]!r:.60}")
    if len({len(line[name]) for name in OF_TOKENS if name in line}) > 1:
        raise ValueError(f"{list(OF_TOKENS)} are not of one length")
    return line
