"""What does training one step behind cost the quickstart in accuracy?

    cegppo sweep experiments/lag_accuracy.py --run --jobs=2

The first half of the quickstart, 25 steps: some seven minutes of a core a run. Its result:
experiments/rollout_lag.md.
"""

from cegppo_jax.sweeps.arms import Arms, over, product, seeds

QUESTION = "Does the quickstart learn as much from rollouts that are one step older?"
PREDICTION = (
    "Yes, within the intervals of three seeds: at a learning rate of 1e-4 the policy moves by some "
    "hundredths of a nat a token in a step, which the ratio sees and the clip bounds. It may learn "
    "later, by about a step."
)
METRIC = ("evaluation/accuracy", 1)
ALSO = (
    ("policy/lag_log_ratio_mean", 5),
    ("policy/lag_ess_fraction", 5),
    ("policy/clip_fraction_low", 5),
    ("policy/clip_fraction_high", 5),
)


def base():
    """Returns the first half of the quickstart."""
    from configs import quickstart  # here, so that --table needs no jax

    config = quickstart.get_config()
    config.steps = 25
    return config


def arms() -> Arms:
    """Returns both lags, with three seeds each."""
    return product(over("batch.rollout_lag_steps", 0, 1), seeds(0, 1, 2))
