"""What do a method and its entropy budget add to the cost of an update?

    python experiments/benchmark_update.py

Times whole updates (forward, backward, AdamW; compiled, NumPy batches in) of the quickstart's model
on one mini-batch of random sequences: every method of SURROGATES, and CE-GPPO without its entropy
budget. The variants take turns, so that a noisy machine is noisy for all; each ratio is the median
over turns of the ratio to PPO's clip.

Prediction: a method computes a few dozen scalars a token, which is little next to a forward and a
backward pass. So every ratio is 1 within noise, except for the methods that select over the
mini-batch (clip_cov, kl_cov), which need another forward pass, a third of an update.
"""

import argparse
import platform
import time
from collections.abc import Callable
from unittest import mock

import jax
import numpy as np

from cegppo_jax.learner.learner import make_learner
from cegppo_jax.learner.update import BatchNeeds
from cegppo_jax.losses import policy_loss
from cegppo_jax.losses.policy_loss import OldStatistics, make_policy_loss
from cegppo_jax.losses.surrogates import SURROGATES
from cegppo_jax.packing import TrainingSequence, pack, with_targets
from cegppo_jax.run.build import TrainingRun, build_run
from cegppo_jax.run.parts import forward_settings
from cegppo_jax.run.settings import read_settings
from cegppo_jax.steering.steer import START, steer
from configs import quickstart


def random_minibatch(run: TrainingRun, random: np.random.Generator):
    """Returns a full mini-batch [U, R, C] of random tokens, half of them moved out of the clip
    interval.
    """
    batch = run.settings.batch
    count = batch.minibatch_sequences
    sequences = [
        TrainingSequence(
            random.integers(2, 20, size=9).tolist(),
            random.integers(2, 20, size=random.integers(12, 28)),
            draw_id=index,
        )
        for index in range(count)
    ]
    tokens = sum(len(sequence.completion_tokens) for sequence in sequences)
    packed = with_targets(
        pack(sequences, run.minibatches.shape),
        advantages=random.normal(size=count),
        loss_weights=np.full(count, 1 / tokens),
    )
    return packed, tokens


# The old log-probs are given: no update finds its own
GIVEN = np.bool_(False)


def timed(update: Callable, state, *arguments):
    """Returns (new state, seconds of one update)."""
    began = time.perf_counter()
    state, reductions, _ = update(state, *arguments)
    jax.block_until_ready((state, reductions))
    return state, time.perf_counter() - began


def main() -> None:
    """Prints a table of ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--methods", nargs="*", default=sorted(SURROGATES))
    options = parser.parse_args()

    config = quickstart.get_config()
    run = build_run(read_settings(config))
    random = np.random.default_rng(0)
    with jax.set_mesh(run.mesh):
        batch, tokens = random_minibatch(run, random)
        state = run.initial_state(run.learner)
        logprobs, entropy = (np.asarray(x) for x in run.learner.logprobs(state.params, batch))
        moved = (logprobs + 0.6 * random.normal(size=logprobs.shape)).astype(np.float32)
        old = OldStatistics(moved, entropy, None)
        _, steering = steer(run.settings.steering, START, run.settings.base_betas, 0, 1.0)
        knobs = run.knobs(steering)

        def updates_of(name: str) -> Callable:
            method = SURROGATES[name]
            return make_learner(
                run.mesh,
                run.model,
                forward_settings(run.settings),
                run.settings.optimizer,
                make_policy_loss(method, None, "half"),
                BatchNeeds(method.selections, method.draws, seed=0),
            ).update

        names = ["ppo_clip", *(name for name in options.methods if name != "ppo_clip")]
        variants = {name: updates_of(name) for name in names}
        label = "ce_gppo without budget"
        variants[label] = updates_of("ce_gppo")
        with mock.patch.object(policy_loss, "entropy_budget", return_value={}):
            state, _ = timed(variants[label], state, batch, old, knobs, GIVEN)  # without it
        seconds: dict[str, list[float]] = {name: [] for name in variants}
        for turn in range(options.turns + 2):
            for name, update in variants.items():
                state, taken = timed(update, state, batch, old, knobs, GIVEN)
                if turn >= 2:  # the first compiles, the second warms up
                    seconds[name].append(taken)
    base = np.asarray(seconds["ppo_clip"])
    print(
        f"{tokens} completion tokens a mini-batch; {options.turns} turns; "
        f"{platform.machine()}, {jax.devices()[0].device_kind}, jax {jax.__version__}"
    )
    print(f"{'method':24} {'ms':>7} {'/ ppo_clip':>10}  quartiles")
    for name, values in seconds.items():
        ratios = np.asarray(values) / base
        low, middle, high = np.percentile(ratios, [25, 50, 75])
        print(f"{name:24} {1e3 * np.median(values):7.1f} {middle:10.3f}  [{low:.3f}, {high:.3f}]")
    budget = np.asarray(seconds["ce_gppo"]) / np.asarray(seconds[label])
    low, middle, high = np.percentile(budget - 1, [25, 50, 75])
    print(f"the entropy budget costs {middle:+.1%} of an update, quartiles {low:+.1%} {high:+.1%}")


if __name__ == "__main__":
    main()
