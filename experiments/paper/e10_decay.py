"""E10, not in the paper: does a preserved gradient that decays left of the interval break no run?

cegppo sweep experiments/paper/e10_decay.py --run --jobs=2 --dir=runs/paper
"""

from cegppo_jax.sweeps.arms import Arms, arm, chain, product
from experiments.paper.arms import ENTROPY, GRPO, SEEDS, SOLVED, ce_gppo, chains

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
ALSO = (SOLVED, ENTROPY, ("policy/ratio_min", 40))

base = chains


def arms() -> Arms:
    """Returns (1, 1), DGPO and GRPO, with five seeds each."""
    dgpo = arm("dgpo", {"loss.surrogate": "dgpo"})
    return product(chain(ce_gppo(1.0, 1.0), dgpo, GRPO), SEEDS)
