"""Does CE-GPPO teach a small policy to reason in several steps, in minutes, on a CPU?

    cegppo train --config=configs/quickstart.py --workdir=runs/quickstart

The warm start imitates solutions of which 60 % give the answer without the steps. CE-GPPO has to
find out, only from whether answers are right, that writing the steps pays.

Variants: `:grpo` (PPO's clipping, no gradient of clipped tokens) and `:gppo` (both
edges kept whole).
Hardware: 2 cores of a CPU.
Time: measured, 3 to 6 minutes on 2 cores of an Intel Xeon or an AMD EPYC.
Results: experiments/README.md, entry 1.
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
    config.steps = 50
    config.problems.min_steps = 2
    config.problems.max_steps = 4
    config.problems.bare_fraction = 0.6

    # 1.0 M parameters. A CPU wants few, wide operations: layers unrolled, nothing recomputed.
    config.model.layers = 5
    config.trainer.scan_unroll = 5
    config.trainer.rematerialise = "none"
    config.trainer.logprob_chunk_tokens = 64

    config.batch.prompts = 64
    config.batch.trained_prompts = 64
    config.batch.minibatch_prompts = 16
    config.batch.row_tokens = 64
    config.batch.rows_per_microbatch = 8

    config.sampler.slots = 128
    config.sampler.prefill_prompts = 64
    config.sampler.max_prompt_tokens = 12
    config.sampler.max_completion_tokens = 28

    config.reward.overlong_buffer_tokens = 8

    config.optimizer.learning_rate = 1e-4
    config.optimizer.warmup_steps = 5

    config.warm_start.steps = 290
    config.warm_start.sequences = 64
    config.warm_start.rows_per_microbatch = 8

    config.evaluation.every_steps = 25
    config.evaluation.sampling.temperature = 1.0  # the policy itself, as it is trained
    config.evaluation.sampling.top_p = 1.0
    config.checkpoint.every_steps = 10
    return base.vary(config, VARIANTS, variant)
