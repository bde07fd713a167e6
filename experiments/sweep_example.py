"""The smallest sweep with everything in it: three betas, two seeds, under a minute a run on a CPU.

    cegppo sweep experiments/sweep_example.py --run --jobs=2

Its result: experiments/sweep_example/. How to write one: experiments/sweeps.md.
"""

from cegppo_jax.sweeps.arms import Arms, over, product, seeds

QUESTION = "Does the gradient kept left of the clip interval (beta_low) make entropy fall faster?"
PREDICTION = (
    "Yes: entropy ends lowest with beta_low = 1 and highest with 0 (section 3.2 of the paper). "
    "Two seeds of 20 steps do not tell the accuracies apart."
)
METRIC = ("policy/entropy", 5)  # the mean of the last five steps
ALSO = ("evaluation/accuracy", ("policy/clip_fraction_low", 5))


def base():
    """Returns the task with many right answers, where entropy need not fall, made small."""
    from configs import sums  # here, so that --table needs no jax

    config = sums.get_config()
    config.steps = 20
    config.warm_start.steps = 200
    config.evaluation.every_steps = 10
    config.checkpoint.every_steps = 5
    return config


def arms() -> Arms:
    """Returns three betas, the paper's first, with two seeds each."""
    return product(over("loss.beta_low", 0.5, 0.0, 1.0), seeds(0, 1))
