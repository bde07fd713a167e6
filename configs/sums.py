"""Can a policy stay uncertain where many answers are right? Entropy, held or left to fall.

    cegppo train --config=configs/sums.py --workdir=runs/sums

The task is `sums` (cegppo_jax/data/tasks/table.py): write a number as a sum of so many digits. Most
problems have hundreds of right answers, so accuracy does not require entropy to fall; if it falls,
that is the method's doing.

Variants: `:grpo` (PPO's clipping), `:gppo`, `:band` (the controller holds entropy between
steering.controller.entropy_low and entropy_high).
Hardware: 2 cores of a CPU.
Time: run for entry 2 of the lab book, on 2 cores of an AMD EPYC; how long it took was not recorded.
Results, of 200 steps: experiments/README.md.
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = {
    "grpo": {"loss.surrogate": "ppo_clip"},
    "gppo": {"loss.surrogate": "gppo"},
    "band": {"steering.controller.enabled": True},
}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe, or a variant of it."""
    config = base.get_config()
    config.steps = 60
    config.problems.task = "sums"
    config.problems.min_steps = 3
    config.problems.max_steps = 5
    config.reward.verifier = "digit_sum"
    config.reward.overlong_buffer_tokens = 4

    # 0.1 M parameters
    config.model.layers = 2
    config.model.width = 64
    config.model.mlp_width = 176
    config.model.heads = 2
    config.model.kv_heads = 2
    config.trainer.scan_unroll = 2
    config.trainer.rematerialise = "none"
    config.trainer.logprob_chunk_tokens = 64

    # 16 updates a rollout and a narrow interval: the betas act on the tokens that leave it, 1-3 %
    # here. With 8 updates and +-0.2 they were too few to stop the fall in every run.
    config.batch.prompts = 64
    config.batch.trained_prompts = 64
    config.batch.minibatch_prompts = 4
    config.loss.clip_low = 0.1
    config.loss.clip_high = 0.1
    config.batch.row_tokens = 64
    config.batch.rows_per_microbatch = 32

    config.sampler.slots = 256
    config.sampler.prefill_prompts = 64
    config.sampler.max_prompt_tokens = 9
    config.sampler.max_completion_tokens = 12
    config.sampler.chunk_steps = 12

    config.optimizer.learning_rate = 2e-4
    config.optimizer.warmup_steps = 8

    config.warm_start.steps = 1500
    config.warm_start.sequences = 64
    config.warm_start.rows_per_microbatch = 32
    config.warm_start.optimizer.learning_rate = 3e-3

    # Of `:band`. In this task the budget finds what lifts entropy left of the interval: a negative
    # beta_low pulls clipped NA&LP tokens back. Entropy falls by itself, so the upper bound is the
    # base: beta = (1, 0) lowers it faster and ruins the policy. Gains: a unit of beta moves
    # ln(entropy) by some 0.003 a step here, so 30 closes a gap in some ten steps.
    config.steering.controller.entropy_low = 0.38
    config.steering.controller.entropy_high = 0.42
    config.steering.controller.proportional_gain = 30.0
    config.steering.controller.integral_gain = 1.5
    config.steering.controller.beta_low_min = -4.0
    config.steering.controller.beta_low_max = 0.5
    config.steering.controller.beta_high_min = 1.0
    config.steering.controller.beta_high_max = 3.0

    config.evaluation.every_steps = 20
    config.evaluation.problems = 48
    config.evaluation.sampling.temperature = 1.0
    config.evaluation.sampling.top_p = 1.0
    config.checkpoint.every_steps = 10
    return base.vary(config, VARIANTS, variant)
