"""The tiny recipe with everything that a run may remember from step to step, or draw: controller,
guard with rollback, adaptive entropy bonus, KL to a reference, stochastic preservation.
"""

import sys
from pathlib import Path

from ml_collections import ConfigDict

sys.path.insert(0, str(Path(__file__).parent))  # a command's, too
import tiny_recipe


def get_config() -> ConfigDict:
    config = tiny_recipe.get_config()
    config.steps = 8
    config.loss.wrappers = ("stochastic_preservation",)
    config.loss.preserve_probability = 0.5
    config.loss.kl_place = "loss"
    config.loss.kl_coef = 0.05
    controller = config.steering.controller
    controller.enabled = True
    controller.entropy_low = 0.4
    controller.entropy_high = 0.5
    controller.smoothing = 0.5
    config.steering.guard.floor = 1.35
    # Entropy falls below the floor in the third step; the second step's checkpoint is then bad, and
    # the one before training good.
    config.steering.guard.patience_steps = 2
    config.steering.guard.rollback = True
    config.steering.entropy_bonus.coef = 0.01
    config.steering.entropy_bonus.target = 1.4
    return config
