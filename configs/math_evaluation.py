"""How good is a model at contest mathematics, by the protocol of arXiv 2509.20712?

    cegppo evaluate --config=configs/math_evaluation.py:aime24 --out=results/base \
        --config.model.pretrained=deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B
    cegppo evaluate --config=configs/math_evaluation.py:aime24 --out=results/ours \
        --run=runs/ce_gppo_1p5b
    cegppo compare results/base results/ours

Variants: `:aime24`, `:aime25`, `:hmmt25`, `:amc23` (avg@32), `:math500` (avg@4); temperature 0.6,
top-p 0.95, completions of up to 32,768 tokens for AIME and 16,384 for the others. Problems come
from the Hugging Face hub; --config.problems.held_out="('aime2024.jsonl',)" names a file instead.

Hardware: accelerators. For DeepSeek-R1-Distill-Qwen-1.5B the cache of 64 slots is 64 GB in bfloat16
for AIME and 34 GB for the others, beside 4 GB of weights.
Time: not run.

The paper does not state its temperature: 0.6 and 0.95 are those of the authors' validation.
Sampling alone gives 30 problems x 32 samples a standard error of about 1.1 points; the printed
interval is wider, since it also covers other problems.
"""

from ml_collections import ConfigDict

from configs import base, paper_scale

VARIANTS = paper_scale.EVALUATIONS


def get_config(variant: str = "aime24") -> ConfigDict:
    """Returns the evaluation on a set of this name."""
    if variant not in paper_scale.EVALUATIONS:
        raise ValueError(f"no evaluation {variant!r}; there are {sorted(paper_scale.EVALUATIONS)}")
    problems, samples, max_completion_tokens = paper_scale.EVALUATIONS[variant]
    config = base.get_config()
    config.mesh.data = 1
    config.mesh.fsdp = -1
    config.problems.task = ""
    config.problems.held_out = (problems,)
    config.reward.verifier = "math"
    config.sampler.slots = 64
    config.sampler.prefill_prompts = 16
    config.sampler.max_prompt_tokens = 2048
    config.sampler.max_completion_tokens = max_completion_tokens
    config.sampler.chunk_steps = 64
    config.sampler.cache_read_ladder = (2048, 4096, 8192, 16384)
    config.sampler.slot_ladder = (16, 32)
    config.sampler.dtype = "bfloat16"
    config.evaluation.samples_per_problem = samples
    config.evaluation.sampling.temperature = 0.6
    config.evaluation.sampling.top_p = 0.95
    return config
