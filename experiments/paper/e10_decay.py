"""E10, not in the paper: does a preserved gradient that decays left of the interval break no run?

cegppo sweep experiments/paper/e10_decay.py --run --jobs=2 --dir=runs/paper
"""

from cegppo_jax.sweeps.arms import Arms, arm, chain, product, seeds

QUESTION = (
    "With beta_low = 1 a run broke in E2: is it because CE-GPPO pushes a token down with the same "
    "weight however rare it has become since the rollout?"
)
PREDICTION = (
    "Yes: DGPO, which keeps both gradients too but lets the left one decay with the square of the "
    "ratio, breaks at most one of five runs, where (1, 1) breaks two or more, and its least ratio "
    "is larger than that of (1, 1) in every seed. Written when (1, 1) had broken with seed 0 (its "
    "least ratio fell to 2e-5 first) and not with seed 1."
)
METRIC = "evaluation/accuracy"
ALSO = ("evaluation/pass_at_n", ("policy/entropy", 10), ("policy/ratio_min", 40))


def base():
    """Returns the task."""
    from configs import chains  # here, so that --table needs no jax

    return chains.get_config()


def arms() -> Arms:
    """Returns (1, 1), DGPO and GRPO, with five seeds each."""
    both = {"loss.surrogate": "ce_gppo", "loss.beta_low": 1.0, "loss.beta_high": 1.0}
    return product(
        chain(
            arm("ce_gppo_1_1", both),
            arm("dgpo", {"loss.surrogate": "dgpo"}),
            arm("grpo", {"loss.surrogate": "ppo_clip"}),
        ),
        seeds(0, 1, 2, 3, 4),
    )
