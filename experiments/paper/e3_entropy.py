"""E3, other ways to keep entropy: bonuses in the loss, a higher clip, masks of tokens.

cegppo sweep experiments/paper/e3_entropy.py --run --jobs=2 --dir=runs/paper
"""

from cegppo_jax.sweeps.arms import Arms, arm, chain, product
from experiments.paper.arms import (
    CLIPPED,
    DAPO,
    ENTROPY,
    GRPO,
    PPO_CLIP,
    SEEDS,
    SOLVED,
    ce_gppo,
    chains,
)

QUESTION = (
    "Does CE-GPPO beat an entropy bonus (the paper's Fig. 5), an adaptive bonus, clip-higher, the "
    "mask of the 20 % most uncertain tokens, and the clipping of entropy ratios (ERC)?"
)
PREDICTION = (
    "In pass@1 no arm is above GRPO by more than the interval of five paired seeds. The bonus of "
    "0.003 cannot be told from GRPO; that of 0.03 keeps more entropy, by more than its interval, "
    "and gains nothing for it. The adaptive bonus ends within 20 % of its target, 0.15 nats, in at "
    "least three of five seeds. The mask and ERC, which take the gradient of most tokens away, "
    "learn less than GRPO. CE-GPPO is within the intervals of all but these two."
)
METRIC = "evaluation/accuracy"
ALSO = (SOLVED, ENTROPY, *CLIPPED)

base = chains


def arms() -> Arms:
    """Returns GRPO, CE-GPPO and what else keeps entropy, with five seeds each."""
    bonus = "steering.entropy_bonus"
    # From 0 it can reach 0.08 in 40 steps; 5e-4 a step, the default, would reach 0.02
    adaptive = {f"{bonus}.target": 0.15, f"{bonus}.step": 2e-3}
    methods = chain(
        GRPO,
        ce_gppo(0.5, 1.0),
        DAPO,
        arm("bonus_0.003", {**PPO_CLIP, f"{bonus}.coef": 0.003}),
        arm("bonus_0.03", {**PPO_CLIP, f"{bonus}.coef": 0.03}),
        arm("bonus_adaptive", {**PPO_CLIP, **adaptive}),
        arm("top_entropy", {**PPO_CLIP, "loss.wrappers": ("top_entropy",)}),
        arm("erc", {**PPO_CLIP, "loss.wrappers": ("entropy_ratio",)}),
    )
    return product(methods, SEEDS)
