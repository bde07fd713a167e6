"""E2, the betas: is entropy ordered as the paper says?

cegppo sweep experiments/paper/e2_betas.py --run --jobs=2 --dir=runs/paper
"""

from cegppo_jax.sweeps.arms import Arms, chain, product
from experiments.paper.arms import CLIPPED, ENTROPY, GRPO, SEEDS, SOLVED, ce_gppo, chains

QUESTION = "Does entropy fall faster the larger beta_low, and slower the larger beta_high?"
PREDICTION = (
    "Yes in rank: within a seed, mean entropy over the steps rises as beta_low falls from 1 to 0, "
    "with a mean Kendall's tau above 0.5, and (1, 0.5) lies below (1, 1) in four of five seeds. "
    "The effect is small, below 0.02 nats from end to end, since 0.3 % of the tokens are clipped. "
    "GRPO, (0, 0), lies within the range of the others. pass@1 of the arms cannot be told apart."
)
METRIC = ENTROPY
ALSO = ("evaluation/accuracy", SOLVED, *CLIPPED)
# Those of the paper's Fig. 3, with (1, 1), which it has at 7B only
BETAS = ((1.0, 0.5), (1.0, 1.0), (0.75, 1.0), (0.5, 1.0), (0.25, 1.0), (0.0, 1.0))

base = chains


def arms() -> Arms:
    """Returns (0, 0), which is GRPO's gradient, and the pairs of betas, with five seeds each."""
    return product(chain(GRPO, *(ce_gppo(*pair) for pair in BETAS)), SEEDS)
