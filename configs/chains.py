"""Does exploration pay? A tiny policy with a rare better style and many wrong habits.

    cegppo train --config=configs/chains.py --workdir=runs/chains

Problems are chains of 3 to 6 operations. The warm start is short, and 80 % of the solutions that it
imitates are a bare guess: the policy writes steps in one of five completions, and gets some of the
steps wrong. RL has to take up the rare style, and then to correct facts, which only samples that
differ from the habit can show it. What GRPO reaches, and how many tokens leave the interval of
+-0.2 in the eight updates of a rollout: experiments/paper/README.md.

Variants: `:grpo` (PPO's clipping, no gradient of clipped tokens) and `:gppo` (both edges kept
whole).
Hardware: 2 cores of a CPU.
Time: measured, some 50 seconds of one core of an AMD EPYC, compilation included.
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = {
    "grpo": {"loss.surrogate": "ppo_clip"},
    "gppo": {"loss.surrogate": "gppo"},
}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe, or a variant of it."""
    config = base.get_config()
    config.steps = 40
    config.problems.min_steps = 3
    config.problems.max_steps = 6
    config.problems.bare_fraction = 0.8

    # 0.1 M parameters
    config.model.layers = 2
    config.model.width = 64
    config.model.mlp_width = 176
    config.model.heads = 2
    config.model.kv_heads = 2
    config.trainer.scan_unroll = 2
    config.trainer.rematerialise = "none"
    config.trainer.logprob_chunk_tokens = 128

    # 8 updates a rollout, as in the paper
    config.batch.prompts = 64
    config.batch.trained_prompts = 64
    config.batch.minibatch_prompts = 8
    config.batch.row_tokens = 128
    config.batch.rows_per_microbatch = 4

    config.sampler.slots = 256
    config.sampler.prefill_prompts = 64
    config.sampler.max_prompt_tokens = 16
    config.sampler.max_completion_tokens = 40
    config.sampler.chunk_steps = 10

    config.reward.overlong_buffer_tokens = 8

    config.optimizer.learning_rate = 4e-4
    config.optimizer.warmup_steps = 5

    config.warm_start.steps = 600
    config.warm_start.sequences = 64
    config.warm_start.rows_per_microbatch = 4
    config.warm_start.optimizer.learning_rate = 3e-3

    config.evaluation.every_steps = 20
    config.evaluation.problems = 128
    config.evaluation.samples_per_problem = 8
    config.evaluation.sampling.temperature = 1.0
    config.evaluation.sampling.top_p = 1.0
    config.checkpoint.every_steps = 100
    config.checkpoint.keep = 1
    config.logging.writers = ()  # with the picture: a good part of such a short run
    config.logging.report_formats = ()
    return base.vary(config, VARIANTS, variant)
