"""Question: does CE-GPPO teach a small policy a task with several reasoning steps, in minutes, on a laptop?

    python -m cegppo_jax.train --config=configs/quickstart.py --workdir=runs/quickstart
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = {
    "": {},
    "grpo": {"loss.surrogate": "ppo_clip"},
    "gppo": {"loss.beta_low": 1.0, "loss.beta_high": 1.0},
}


def get_config(variant: str = "") -> ConfigDict:
    config = base.get_config()
    config.steps = 60
    config.problems.min_steps = 3
    config.problems.max_steps = 5
    config.model.layers = 5
    config.batch.prompts = 32
    config.batch.minibatch_prompts = 8
    config.batch.row_tokens = 80
    config.batch.rows_per_microbatch = 32
    config.sampler.slots = 128
    config.sampler.prefill_prompts = 32
    config.sampler.max_prompt_tokens = 14
    config.sampler.max_completion_tokens = 40
    config.sampler.cache_read_ladder = (53,)
    config.trainer.rematerialise = False
    config.trainer.scan_unroll = 5
    config.trainer.logprob_chunk_tokens = 80
    config.optimizer.learning_rate = 2e-4
    config.optimizer.warmup_steps = 5
    config.warm_start.steps = 180
    config.warm_start.sequences = 64
    config.warm_start.rows_per_microbatch = 32
    config.evaluation.every_steps = 10
    config.checkpoint.every_steps = 10
    config.update_from_flattened_dict(VARIANTS[variant])
    return config
