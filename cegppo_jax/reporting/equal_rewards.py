"""A message to the user when rewards have taught nothing for several steps.

The completions of a group are compared with one another. If all rewards of a group are equal, its
advantages are 0; if that holds for every group, step after step, the policy stands still.
"""

from __future__ import annotations

from collections.abc import Mapping

STEPS_IN_A_ROW = 5
MOST = 0.5  # share of completions that makes a reason likely


class EqualRewards:
    """Counts consecutive steps without two different rewards in any group, and reports it once."""

    def __init__(self, max_completion_tokens: int) -> None:
        """Args: max_completion_tokens: the sampler's limit, for the message."""
        self._limit = max_completion_tokens
        self._count, self._said = 0, False

    def message(self, step: int, values: Mapping[str, float]) -> str | None:
        """Returns what to print after a step, the first time that a message is due; else None."""
        equal = values.get("reward/uniform_group_fraction") == 1
        self._count = self._count + 1 if equal else 0
        if self._said or self._count < STEPS_IN_A_ROW:
            return None
        self._said = True
        return (
            f"steps {step - self._count + 1} to {step}: in every group all completions earned the "
            "same reward, so that the rewards teach nothing (advantages and their gradient are 0). "
            + likely_reason(values, self._limit)
        )


def likely_reason(values: Mapping[str, float], max_completion_tokens: int) -> str:
    """Returns how the completions of a step with equal rewards fared, and what to change."""
    outcomes = ("correct", "wrong", "unparsed", "timed_out", "crashed")
    shares = {name: values[f"reward/{name}_fraction"] for name in outcomes}
    truncated = values["rollout/truncated_fraction"]
    fared = ", ".join(f"{share:.0%} {name}" for name, share in shares.items() if share)
    fared = f"Of the last step's completions: {fared}; {truncated:.0%} truncated. "
    if shares["crashed"] + shares["timed_out"] >= MOST:
        return fared + "Likely: the verifier fails. See reward.pool and samples.jsonl"
    if shares["correct"] >= MOST:
        return fared + (
            "Likely: the problems are too easy for the policy. Take harder ones, or "
            "batch.prompt_weighting = 'difficulty'"
        )
    if truncated >= MOST:
        return fared + (
            "Likely: completions are cut before they answer. Raise sampler.max_completion_tokens "
            f"= {max_completion_tokens}, or, if they continue after their answer, name the token "
            "that ends a turn in problems.ending_tokens"
        )
    if shares["unparsed"] >= MOST:
        return fared + (
            "Likely: completions do not give answers in the form that reward.verifier reads. Ask "
            "for it in problems.instruction, or choose another verifier; see samples.jsonl"
        )
    return fared + (
        "Likely: the problems are too hard for the policy, or their answers are of another form "
        "than reward.verifier compares. See samples.jsonl; take easier problems, more "
        "batch.samples_per_prompt, or a warm start"
    )
