"""Does exploration pay? Long chains of arithmetic, from a policy that is sure of wrong facts.

    cegppo train --config=configs/chains.py --workdir=runs/chains
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
    config.steps = 60
    config.problems.min_steps = 2
    config.problems.max_steps = 4
    config.problems.bare_fraction = 0.8

    # 0.1 M parameters
    config.model.layers = 2
    config.model.width = 64
    config.model.mlp_width = 176
    config.model.heads = 2
    config.model.kv_heads = 2
    config.trainer.scan_unroll = 2
    config.trainer.rematerialise = "none"
    config.trainer.logprob_chunk_tokens = 64

    # 8 updates a rollout, as in the paper
    config.batch.prompts = 32
    config.batch.trained_prompts = 32
    config.batch.minibatch_prompts = 4
    config.batch.row_tokens = 64
    config.batch.rows_per_microbatch = 32

    config.sampler.slots = 256
    config.sampler.prefill_prompts = 32
    config.sampler.max_prompt_tokens = 12
    config.sampler.max_completion_tokens = 28
    config.sampler.chunk_steps = 14

    config.reward.overlong_buffer_tokens = 8

    config.optimizer.learning_rate = 3e-4
    config.optimizer.warmup_steps = 5

    config.warm_start.steps = 400
    config.warm_start.sequences = 64
    config.warm_start.rows_per_microbatch = 32
    config.warm_start.optimizer.learning_rate = 3e-3

    config.evaluation.every_steps = 20
    config.evaluation.problems = 128
    config.evaluation.samples_per_problem = 8
    config.evaluation.sampling.temperature = 1.0
    config.evaluation.sampling.top_p = 1.0
    config.checkpoint.every_steps = 20
    config.checkpoint.keep = 1
    config.logging.writers = ()
    config.logging.report_formats = ()
    return base.vary(config, VARIANTS, variant)
