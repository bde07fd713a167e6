"""The smallest sweep that shows everything: three betas, two seeds, on one-digit sums.

    python -m cegppo_jax.sweep experiments/sweep_example.py --run --jobs=2
"""

from cegppo_jax.sweeps.arms import Arms, over, product, seeds

QUESTION = "Does the gradient kept left of the clip interval (beta_low) change how entropy falls?"
PREDICTION = (
    "With more of it entropy falls faster (the paper's section 3.2), and accuracy on so easy a "
    "task is the same within noise."
)
METRIC = "evaluation/accuracy"
ALSO = ("policy/entropy", ("reward/mean", 5), "policy/clip_count_low")


def base():
    """Returns the quickstart, made small."""
    from configs import quickstart  # here, so that --table needs no jax

    config = quickstart.get_config()
    config.steps = 20
    return config


def arms() -> Arms:
    """Returns three betas, the paper's first, with two seeds each."""
    return product(over("loss.beta_low", 0.5, 0.0, 1.0), seeds(0, 1))
