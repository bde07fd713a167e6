"""E2 where ten times as many tokens are clipped: the betas on a task with many right answers.

cegppo sweep experiments/paper/e2_sums.py --run --jobs=2 --dir=runs/paper
"""

from cegppo_jax.sweeps.arms import Arms, arm, chain, product
from experiments.paper.arms import CLIPPED, ENTROPY, PPO_CLIP, SEEDS, betas

QUESTION = (
    "E2 clips 0.3 % of the tokens. Is entropy ordered by the betas where some 2 % are, at an "
    "entropy that stays far from 0?"
)
PREDICTION = (
    "Yes: mean entropy over the steps rises as beta_low falls from 1 to 0, with a Kendall's tau "
    "of 1 in at least four of five seeds, by more than 0.02 nats from end to end, and (1, 0.5) is "
    "lowest. Written after three seeds of E2, which show no order, and one trial of GRPO here."
)
METRIC = ENTROPY
ALSO = ("evaluation/accuracy", *CLIPPED)
BETAS = ((1.0, 0.5), (1.0, 1.0), (0.5, 1.0), (0.0, 1.0))


def base():
    """Returns configs/sums.py with the paper's interval and 8 updates a rollout."""
    from configs import sums  # here, so that --table needs no jax

    config = sums.get_config()
    config.steps = 40
    config.loss.clip_low = 0.2
    config.loss.clip_high = 0.2
    config.batch.minibatch_prompts = 8
    config.batch.rows_per_microbatch = 8
    config.optimizer.learning_rate = 3e-4
    config.warm_start.steps = 1000
    config.warm_start.rows_per_microbatch = 8
    config.evaluation.samples_per_problem = 8
    config.checkpoint.every_steps = 200
    config.checkpoint.keep = 1
    config.logging.writers = ()
    config.logging.report_formats = ()
    return config


def arms() -> Arms:
    """Returns GRPO and four pairs of betas, with five seeds each."""
    pairs = [arm(f"sums_{low:g}_{high:g}", betas(low, high)) for low, high in BETAS]
    return product(chain(arm("sums_grpo", PPO_CLIP), *pairs), SEEDS)
