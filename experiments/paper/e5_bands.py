"""E5, entropy held in a band: is there a best one?

cegppo sweep experiments/paper/e5_bands.py --run --jobs=2 --dir=runs/paper
"""

from typing import Any

from cegppo_jax.sweeps.arms import Arms, arm, chain, product
from experiments.paper.arms import CLIPPED, ENTROPY, PPO_CLIP, SEEDS, SOLVED, betas, chains

QUESTION = (
    "The controller holds entropy where it is asked to. Which entropy is best for pass@1, and "
    "which for pass@8?"
)
PREDICTION = (
    "The controller ends within 20 % of its target in more than half of the runs at 0.1 and 0.15 "
    "nats, and misses 0.3 in most. pass@1 is the lower the higher the band: 0.3 is below GRPO, "
    "and no band is above it by more than the interval of five paired seeds. pass@8 is highest in "
    "a band between, 0.1 or 0.15, though not by more than the interval."
)
METRIC = "evaluation/accuracy"
ALSO = (SOLVED, ENTROPY, *CLIPPED)
TARGETS = (0.1, 0.15, 0.2, 0.3)  # nats
HALF_WIDTH = 0.05  # of a band, relative


def base() -> Any:
    """Returns the task with an interval of +-0.1, which gives the betas more tokens to act on, and
    with the controller's gains and bounds of configs/sums.py.
    """
    from configs import sums

    config = chains()
    config.loss.clip_low = config.loss.clip_high = 0.1
    config.steering.controller.update(sums.get_config().steering.controller)
    return config


def band(target: float) -> Arms:
    """Returns the arm whose entropy is held around a target."""
    place = "steering.controller"
    limits = {
        f"{place}.enabled": True,
        f"{place}.entropy_low": round(target * (1 - HALF_WIDTH), 4),
        f"{place}.entropy_high": round(target * (1 + HALF_WIDTH), 4),
    }
    return arm(f"band_{target:g}", {**betas(0.5, 1.0), **limits})


def arms() -> Arms:
    """Returns GRPO, CE-GPPO and the bands, with five seeds each."""
    fixed = chain(arm("grpo_narrow", PPO_CLIP), arm("ce_gppo_0.5_1_narrow", betas(0.5, 1.0)))
    return product(chain(fixed, *map(band, TARGETS)), SEEDS)
