"""The tiny recipe with all that dynamic sampling remembers from step to step: carried groups, of
which there are enough to fill whole steps, and a store that weighs prompts and forgets some.
"""

import sys
from pathlib import Path

from ml_collections import ConfigDict

sys.path.insert(0, str(Path(__file__).parent))  # a command's, too
import tiny_recipe


def get_config() -> ConfigDict:
    config = tiny_recipe.get_config()
    config.steps = 8
    config.batch.dynamic_sampling = "carry_over"
    config.batch.prompts = 20
    config.batch.trained_prompts = 4
    config.batch.minibatch_prompts = 2
    config.batch.refill_prompts = 5
    config.batch.max_refills = 3
    config.batch.max_staleness_steps = 2
    config.batch.prompt_weighting = "difficulty"
    config.batch.difficulty.capacity_problems = 40
    return config
