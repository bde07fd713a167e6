"""E9, not in the paper: at a learning rate near the edge, which preserved gradient breaks a run?

cegppo sweep experiments/paper/e9_stability.py --run --jobs=2 --dir=runs/paper
"""

from cegppo_jax.sweeps.arms import Arms, arm, chain, product, seeds
from experiments.paper.arms import ENTROPY, PPO_CLIP, betas, chains

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
ALSO = ("evaluation/accuracy", ENTROPY, ("policy/kl_old", 40))
FAST = {"optimizer.learning_rate": 6e-4}

base = chains


def arms() -> Arms:
    """Returns GRPO and three values of beta_low, at the larger rate, with five seeds each."""
    pairs = [arm(f"ce_gppo_{low:g}_1_fast", {**betas(low, 1.0), **FAST}) for low in (0.0, 0.5, 1.0)]
    return product(chain(arm("grpo_fast", {**PPO_CLIP, **FAST}), *pairs), seeds(1, 2, 3, 4, 5))
