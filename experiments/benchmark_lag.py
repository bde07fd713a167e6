"""What does a rollout one step ahead save, where verifiers are slow?

    python experiments/benchmark_lag.py

Steps of a quarter of the quickstart's batch, without its warm start and at a learning rate of 0,
with batch.rollout_lag_steps = 0 and 1, at several speeds of the verifier, which sleeps. Both take
turns of STEPS steps, so that a noisy machine is noisy for both, and the first of a turn is not
timed: its verifiers had the other's turn. The ratio is that of the seconds of a turn, its median
over turns. On a CPU host and devices share the cores: what can be saved is the time in which both
wait for verifiers.

Prediction: with a verifier that answers at once the ratio is 1 or above, since the lag adds the old
log-probs of the first mini-batch. With a slow one it tends to the larger of (step without waiting,
time of the verifiers) / (their sum).
"""

import argparse
import os
import statistics
import time

import cegppo_jax as cg
from cegppo_jax.rewards.verifiers import final_answer
from configs import quickstart

STEPS = 3  # of a turn
SECONDS = "CEGPPO_VERIFIER_SECONDS"  # variable: how long one completion takes


def sleepy(text, problem):
    """As final_answer, after a while."""
    time.sleep(float(os.environ[SECONDS]))
    return final_answer(text, problem)


def trainer_of(lag: int, seconds: float, workers: int, steps: int) -> cg.Trainer:
    """Returns a trainer of the quickstart with a lag, whose verifiers take some seconds each."""
    os.environ[SECONDS] = str(seconds)  # the workers inherit it
    config = quickstart.get_config()
    config.steps = steps
    config.warm_start.steps = 0
    config.batch.prompts = config.batch.trained_prompts = 16
    config.batch.minibatch_prompts = 4
    config.optimizer.learning_rate = 0.0  # else the two would write completions of other lengths
    config.batch.rollout_lag_steps = lag
    config.reward.verifier = "experiments.benchmark_lag:sleepy"
    config.reward.pool.workers = workers
    return cg.Trainer(config)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, nargs="*", default=[0.0, 0.02, 0.05])
    options = parser.parse_args()
    print("| seconds a completion | step, lag 0 | step, lag 1 | waiting for scores | ratio |")
    print("|---|---|---|---|---|")
    for seconds in options.seconds:
        trainers = [
            trainer_of(lag, seconds, options.workers, STEPS * (options.turns + 2)) for lag in (0, 1)
        ]
        took: list[list[float]] = [[], []]
        waited: list[list[float]] = [[], []]
        for turn in range(1 + options.turns):  # the first compiles
            for lag, trainer in enumerate(trainers):
                trainer.step()
                began = time.perf_counter()
                taken = [trainer.step() for _ in range(STEPS - 1)]
                if turn:
                    took[lag].append((time.perf_counter() - began) / len(taken))
                    waited[lag] += [one.values["time/score_wait_seconds"] for one in taken]
        for trainer in trainers:
            trainer.close()
        ratio = statistics.median(one / zero for zero, one in zip(*took, strict=True))
        steps = [statistics.median(one) for one in took]
        waits = [statistics.median(one) for one in waited]
        print(
            f"| {seconds:g} | {steps[0]:.2f} s | {steps[1]:.2f} s | {waits[0]:.2f} s, "
            f"{waits[1]:.2f} s | {ratio:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
