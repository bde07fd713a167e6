"""What does verification cost: completions a second, and the time it adds to a rollout?

    python experiments/benchmark_scoring.py
    python experiments/benchmark_scoring.py --verifier=math --completions=answers.jsonl

Prints two tables. (1) Completions a second, in the main process (0 workers) and in pools: for a
verifier on its completions (without --completions, made-up sums with an answer after '#'), and for
verifiers that take 1 and 5 ms, which shows what the pool adds; in wall time, and in the CPU time of
all processes, which other work on the machine does not change. (2) Rollouts of the quickstart,
alternating between all kinds of scorer: scoring's share of the time from first token to last score.

Prediction: a round trip to a worker takes a fraction of a millisecond. That is negligible for a
verifier that uses sympy (some milliseconds) and not for final_answer (microseconds), which belongs
in the main process. Workers hide a verifier as long as its milliseconds x completions / workers are
less than sampling takes, on cores that sampling leaves free; beyond that the rollout waits.
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import time
from functools import partial
from pathlib import Path

import jax

from cegppo_jax.rewards.settings import RewardSettings, usable_cores
from cegppo_jax.rewards.workers.open_scorer import judge_of
from cegppo_jax.rewards.workers.pool import PoolScorer
from cegppo_jax.rewards.workers.scorer import InProcessScorer, Scorer
from cegppo_jax.rollout.actor import RolloutCost
from cegppo_jax.rollout.collect import sample_round
from cegppo_jax.run.build import TrainingRun, build_run
from cegppo_jax.run.settings import read_settings
from cegppo_jax.types import Problem
from configs import quickstart

PROBLEM = Problem("ready", "", "1", "made-up")
SLOW = "slow_verifiers:five_milliseconds"

Item = tuple[str, Problem]


def made_up(count: int) -> list[Item]:
    """Returns completions of about 60 characters, half of them right."""
    return [
        (
            f"{n} + {n + 1} = {2 * n + 1}; {2 * n + 1} * 2 = {4 * n + 2}; #{4 * n + 2 + n % 2}",
            Problem(f"made-up-{n}", f"({n} + {n + 1}) * 2", str(4 * n + 2), "made-up"),
        )
        for n in range(count)
    ]


def read_items(path: Path) -> list[Item]:
    """Reads completions from a .jsonl file with `completion` and `answer`."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        (line["completion"], Problem(str(n), "", str(line["answer"]), "file"))
        for n, line in enumerate(lines)
    ]


def open_for(settings: RewardSettings, workers: int) -> Scorer:
    """Opens a scorer in the main process (0 workers) or in a pool."""
    if workers == 0:
        return InProcessScorer(judge_of(settings), settings.outcomes)
    pool = dataclasses.replace(settings.pool, workers=workers)
    return PoolScorer(partial(judge_of, settings), pool, settings.outcomes)


def processor_seconds() -> float:
    """Returns the CPU time of this process and of those that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def costs(settings: RewardSettings, workers: int, items: list[Item]) -> tuple[float, float]:
    """Returns (wall seconds, CPU seconds) from the first submission to the last score; the CPU
    time includes starting and ending the processes.
    """
    used = processor_seconds()
    with open_for(settings, workers) as scorer:
        for future in [scorer.submit("#", PROBLEM) for _ in range(8 * workers)]:
            future.result()  # the processes are ready
        began = time.perf_counter()
        for future in [scorer.submit(*item) for item in items]:
            future.result()
        clock = time.perf_counter() - began
    return clock, processor_seconds() - used


def print_rates(
    settings: RewardSettings, verifiers: dict[str, int], items: list[Item], counts: list[int]
) -> None:
    """Prints table 1: each verifier, on a number of completions."""
    print("| verifier | workers | completions/s | completions/s of a core |\n|---|---|---|---|")
    for verifier, tried in verifiers.items():
        reward = dataclasses.replace(settings, verifier=verifier)
        for workers in counts:
            _, start = costs(reward, workers, [])
            clock, used = costs(reward, workers, items[:tried])
            per_core = tried / (used - start)
            print(
                f"| {verifier} | {workers} | {tried / clock:,.0f} | {per_core:,.0f} |", flush=True
            )


def print_rollouts(run: TrainingRun, reward: RewardSettings, turns: int) -> None:
    """Prints table 2."""
    settings = run.settings
    state = run.initial_state(run.learner)
    prompts = run.source.stream.take(0, settings.batch.prompts).prompts
    kinds = {
        f"{verifier}, {workers} workers": open_for(
            dataclasses.replace(reward, verifier=verifier), workers
        )
        for verifier in ("final_answer", SLOW)
        for workers in (0, 1)
    }
    shares: dict[str, list[float]] = {kind: [] for kind in kinds}
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(1 + turns):  # the first compiles
        for kind, scorer in kinds.items():
            cost = RolloutCost()
            sampled = sample_round(
                dataclasses.replace(run.actor, scorer=scorer),
                state.params,
                prompts,
                settings.batch.samples_per_prompt,
                sampling=settings.sampling,
                key=jax.random.fold_in(run.source.key, turn),
                policy_version=0,
                cost=cost,
            )
            assert sampled.scored  # once they are
            scoring = cost.scoring_seconds + cost.waiting_seconds
            if turn:
                seconds[kind].append(cost.sampling_seconds + scoring)
                shares[kind].append(scoring / seconds[kind][-1])
    completions = settings.batch.prompts * settings.batch.samples_per_prompt
    print(f"\nrollouts of the quickstart's, {completions} completions, {turns} turns")
    print("| scorer | rollout | scoring's share | largest |")
    print("|---|---|---|---|")
    for kind, scorer in kinds.items():
        scorer.close()
        median = statistics.median
        print(
            f"| {kind} | {median(seconds[kind]):.3f} s | {median(shares[kind]):.2%} | "
            f"{max(shares[kind]):.2%} |"
        )


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--verifier", default="final_answer")
    parser.add_argument("--completions", type=Path, help="jsonl: completion, answer")
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()

    settings = read_settings(quickstart.get_config())
    print(f"{platform.machine()}, {usable_cores()} cores, Python {platform.python_version()}")
    pool = dataclasses.replace(settings.reward.pool, workers=1)
    reward = dataclasses.replace(settings.reward, verifier=options.verifier, pool=pool)
    items = read_items(options.completions) if options.completions else made_up(5_000)
    verifiers = {options.verifier: len(items)}
    verifiers |= {"slow_verifiers:one_millisecond": 500, SLOW: 100}
    print_rates(reward, verifiers, items, options.workers)
    run = build_run(settings)
    with jax.set_mesh(run.mesh):
        print_rollouts(run, reward, options.turns)


if __name__ == "__main__":
    main()
