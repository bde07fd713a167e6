"""Tests a scorer before a run: does it recognise a right answer, a wrong one and a hanging one?

A verifier that finds nothing right trains a policy on noise, for as long as nobody looks.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

from cegppo_jax.rewards.gold import answer_forms
from cegppo_jax.rewards.scoring import RewardValues, Scoring
from cegppo_jax.rewards.settings import PoolSettings
from cegppo_jax.rewards.verifiers import EXAMPLES, VerifierExample, resolve_verifier
from cegppo_jax.rewards.workers.pool import PoolScorer, WorkerFailed
from cegppo_jax.rewards.workers.scorer import Judge, Scorer
from cegppo_jax.types import JUDGED, Outcome, Problem, Score

HANG_SECONDS = 0.25  # time limit of the hanging completion
TRIED_PROBLEMS = 4


def check_scorer(scorer: Scorer, scoring: Scoring, problems: Sequence[Problem]) -> None:
    """Tries the examples of every verifier, and the run's first problems with their own answers.

    Args:
      scorer: of the run. scoring: what it does.
      problems: of the run. The answer of one, in each of answer_forms, may be found right or not,
        since the verifier may want another form; but it must be judged. If a user's verifier
        without examples finds none of them right, that is printed: nothing has then shown that it
        ever finds anything right.

    Raises:
      ValueError: one was not judged as it must be, with what was found instead.
    """
    asked: list[tuple[str, Problem, tuple[Outcome, ...]]] = []
    for source, verifier in (("self-test", scoring.verifier), *scoring.by_source):
        for example in examples_of(verifier):
            problem = dataclasses.replace(example.problem, source=source)
            asked.append((example.right, problem, (Outcome.CORRECT,)))
            asked.append((example.wrong, problem, (Outcome.WRONG,)))
    for problem in problems[:TRIED_PROBLEMS]:
        asked += [(text, problem, JUDGED) for text in answer_forms(problem.answer)]
    right: dict[str, list[bool]] = {}  # of the verifiers that have no example
    for text, problem, expected in asked:
        thinks = scoring.scope == "after_think"
        outcome = scored(scorer, f"<think></think>{text}" if thinks else text, problem).outcome
        if outcome not in expected:
            reason = f" ({scorer.last_crash})" if outcome is Outcome.CRASHED else ""
            raise ValueError(
                f"self-test of the verifier {scoring.verifier_of(problem)!r}: completion {text!r}, "
                f"problem {problem.id!r} with the answer {problem.answer!r}, must be found "
                f"{' or '.join(expected)}, but is {outcome}{reason}. Choose a verifier that reads "
                "these answers, or fix it; its limits are in reward.pool"
            )
        name = scoring.verifier_of(problem)
        if not examples_of(name):
            right.setdefault(name, []).append(outcome is Outcome.CORRECT)
    for name in (name for name, found in right.items() if not any(found)):
        print(
            f"the verifier {name!r} found none of the problems' own answers right, of the first "
            f"{min(TRIED_PROBLEMS, len(problems))} problems, by itself, in a box and after ####: "
            "if it wants another form, give its function the attribute `examples` to have it tried",
            flush=True,
        )


def examples_of(verifier: str) -> Sequence[VerifierExample]:
    """Returns what a verifier is tried on. A verifier by import path may bring examples as its
    function's attribute `examples`, a sequence of VerifierExample.
    """
    if verifier in EXAMPLES:
        return [EXAMPLES[verifier]]
    return getattr(resolve_verifier(verifier), "examples", ())


def check_kills(settings: PoolSettings, values: RewardValues) -> None:
    """Tries, in a separate pool with a shorter limit, whether this machine allows processes to be
    killed.

    Raises:
      ValueError: it does not, or no process could be started.
    """
    quick = dataclasses.replace(settings, workers=1, timeout_seconds=HANG_SECONDS)
    with PoolScorer(hanging_judge, quick, values) as scorer:
        outcome = scored(scorer, "", Problem("self-test", "", "", "self-test")).outcome
    if outcome is not Outcome.TIMED_OUT:
        raise ValueError(
            f"self-test of reward.pool: a completion that hangs must be found timed_out, but is "
            f"{outcome} ({scorer.last_crash})"
        )


def scored(scorer: Scorer, text: str, problem: Problem) -> Score:
    """Returns a completion's Score. Raises ValueError when no process can be started."""
    try:
        return scorer.submit(text, problem).result()
    except WorkerFailed as error:
        raise ValueError(f"{error} (reward.pool, reward.verifier)") from error


def hanging_judge() -> Judge:
    """Returns a Judge that never ends."""
    return hang


def hang(text: str, problem: Problem) -> Score:
    """Never returns."""
    del text, problem
    while True:
        time.sleep(HANG_SECONDS)
