"""The recipe of the smallest run with every part in it: seconds on one core, and on 1 or 8 devices.

Its rewards differ within groups and its updates clip, so that a wrong step would show.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.steps = 6
    config.problems.min_steps = 1
    config.problems.max_steps = 1
    config.model.width = 16
    config.model.layers = 1
    config.model.heads = 2
    config.model.kv_heads = 1
    config.model.head_size = 8
    config.model.mlp_width = 32
    config.batch.prompts = 8
    config.batch.trained_prompts = 8
    config.batch.samples_per_prompt = 4
    config.batch.minibatch_prompts = 4
    config.batch.row_tokens = 32
    config.batch.rows_per_microbatch = 8
    config.sampler.slots = 16
    config.sampler.prefill_prompts = 8
    config.sampler.max_prompt_tokens = 5  # <|user|> 7 + 5 <|assistant|>
    config.sampler.max_completion_tokens = 9  # 7 + 5 = 2 ; # 2 <|end|>
    config.sampler.cache_read_ladder = (10,)
    config.reward.outcomes.wrong = -0.5
    config.trainer.rematerialise = "none"
    config.trainer.logprob_chunk_tokens = 32
    config.optimizer.learning_rate = 1e-2
    config.optimizer.warmup_steps = 2
    config.warm_start.steps = 40
    config.warm_start.sequences = 32
    config.warm_start.rows_per_microbatch = 8
    config.warm_start.optimizer.learning_rate = 1e-2
    config.warm_start.optimizer.warmup_steps = 5
    config.evaluation.every_steps = 2
    config.evaluation.problems = 8  # of the 28 held-out ones
    config.evaluation.samples_per_problem = 2
    config.evaluation.sampling.temperature = 1.0
    config.evaluation.sampling.top_p = 1.0
    config.checkpoint.every_steps = 2
    config.logging.samples_every_steps = 2
    config.logging.entropy_change_every_steps = 3
    return config
