"""E7, dynamic sampling: which groups train, at equal numbers of sampled tokens?

cegppo sweep experiments/paper/e7_sampling.py --run --jobs=2 --dir=runs/paper
"""

from typing import Any

from cegppo_jax.sweeps.arms import Arms, arm, chain, product
from experiments.paper.arms import ENTROPY, PPO_CLIP, SEEDS, SOLVED, chains

QUESTION = (
    "Is it worth its tokens to drop groups whose rewards are all equal, to draw others in their "
    "place (DAPO), to keep what is left for the next step, or to skip prompts that look useless?"
)
PREDICTION = (
    "At equal sampled tokens, no arm's pass@1 is above that of `none` by more than the interval "
    "of five paired seeds: AdamW rescales the smaller gradients of diluted mini-batches, and "
    "refills buy fuller batches with fewer steps. `filter` is below `none`, since it makes fewer "
    "updates of the same groups. `carry_over` is above `refill`, whose surplus is thrown away, in "
    "at least four of five seeds. `difficulty` is within 2 points of `none`: one prompt in six "
    "recurs."
)
METRIC = "evaluation/accuracy"
ALSO = (SOLVED, ENTROPY, ("rollout/groups_trained", 10), ("rollout/completions", 40))


def base() -> Any:
    """Returns the task with chains of 1 to 4 operations, of which there are few enough of one
    operation, 270, that they come again and can be known as easy.
    """
    config = chains()
    config.problems.min_steps = 1
    config.problems.max_steps = 4
    config.batch.refill_prompts = 32
    config.evaluation.every_steps = 5
    return config


def arms() -> Arms:
    """Returns GRPO with every way of choosing what trains, with five seeds each."""
    modes = [
        arm(mode, {**PPO_CLIP, "batch.dynamic_sampling": mode})
        for mode in ("none", "filter", "refill", "carry_over")
    ]
    weighted = arm("difficulty", {**PPO_CLIP, "batch.prompt_weighting": "difficulty"})
    return product(chain(*modes, weighted), SEEDS)
