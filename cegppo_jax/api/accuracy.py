"""What scored samples show about a policy, with intervals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cegppo_jax.api.samples import Samples, findings, listed
from cegppo_jax.evaluation.estimates import Attempt, Evaluation, summarise
from cegppo_jax.rewards.scoring import RewardValues, credited

CREDIT = RewardValues(correct=1.0, wrong=0.0, unparsed=0.0, timed_out=0.0, crashed=0.0)


def accuracy(
    samples: Samples, answers: Any, verifier: str | Callable[..., Any] = "math"
) -> Evaluation:
    """Estimates avg@n, pass@k and maj@k, with 95 % intervals over problems, as the command
    `evaluate` does; `print` shows them. Partial credit below 1 counts as wrong.

    Args: as of `score`.

    Raises:
      ValueError: as of `score`.
    """
    return summarise(attempts(samples, answers, verifier))


def attempts(
    samples: Samples, answers: Any, verifier: str | Callable[..., Any] = "math"
) -> list[Attempt]:
    """Returns each completion with what the verifier found in it: what cegppo_jax.compare compares.

    Args: as of `score`.

    Raises:
      ValueError: as of `score`.
    """
    golds = listed(answers)  # once: an iterator has no second time
    found = findings(samples, golds, verifier)
    return [
        Attempt(
            problem=place,
            id=f"{place}: {prompt.problem.problem}",
            sample=sample,
            completion=samples.texts[place][sample],
            answer=finding.answer,
            rule=finding.rule,
            gold=str(golds[place]),
            outcome=finding.outcome,
            reward=credited(finding, CREDIT),
            tokens=len(completion.tokens),
            stop_reason=completion.stop_reason,
        )
        for place, (prompt, group) in enumerate(
            zip(samples.prompts, samples.completions, strict=True)
        )
        for sample, (completion, finding) in enumerate(zip(group, found[place], strict=True))
    ]
