"""E9, not in the paper: at a learning rate near the edge, which preserved gradient breaks a run?

cegppo sweep experiments/paper/e9_stability.py --run --jobs=2 --dir=runs/paper
"""

from cegppo_jax.sweeps.arms import Arms, arm, chain, product, seeds

QUESTION = (
    "The paper finds CE-GPPO as stable as GRPO (Fig. 4). Does that hold at 1.5 times the learning "
    "rate of configs/chains.py, and which beta decides?"
)
PREDICTION = (
    "No: with beta_low = 1 more than half of the runs break (they end below the accuracy that they "
    "began with), with beta_low = 0 and in GRPO none or one of five. Of two trial runs with seed "
    "0, (1, 1) broke and (0, 1) did not; seed 0 is therefore not among these."
)
METRIC = ("reward/correct_fraction", 10)
ALSO = ("evaluation/accuracy", ("policy/entropy", 10), ("policy/kl_old", 40))
RATE = 6e-4


def base():
    """Returns the task."""
    from configs import chains  # here, so that --table needs no jax

    return chains.get_config()


def arms() -> Arms:
    """Returns GRPO and three values of beta_low, at the larger rate, with five seeds each."""
    pairs = [
        arm(
            f"ce_gppo_{low:g}_1_fast",
            {
                "loss.surrogate": "ce_gppo",
                "loss.beta_low": low,
                "loss.beta_high": 1.0,
                "optimizer.learning_rate": RATE,
            },
        )
        for low in (0.0, 0.5, 1.0)
    ]
    grpo = arm("grpo_fast", {"loss.surrogate": "ppo_clip", "optimizer.learning_rate": RATE})
    return product(chain(grpo, *pairs), seeds(1, 2, 3, 4, 5))
