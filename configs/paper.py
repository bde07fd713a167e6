"""Does CE-GPPO beat GRPO, DAPO, CISPO and GSPO on mathematics, as arXiv 2509.20712 reports?

    python -m cegppo_jax.train --config=configs/paper.py:ce_gppo_1p5b --workdir=runs/ce_gppo_1p5b

The paper's runs: `:<method>` or `:<method>_official` for each method of configs/presets.py;
`ce_gppo_7b` has the 7B model, the others the 1.5B one. Batches, lengths, optimizer and evaluation
are those of the authors' scripts; the paper ran up to 1000 steps on 128 GPUs and reports, for 1.5B,
AIME24 42.0, AIME25 33.9, HMMT25 21.6, MATH500 91.0, AMC23 85.9 (GRPO: 33.4, 28.1, 16.6, 88.3,
79.3).

The model has the shape of DeepSeek-R1-Distill-Qwen, without its attention biases: pretrained
weights cannot be loaded yet, nor free-form mathematics verified. Until then this recipe is read,
checked and planned with, not run.
"""

from ml_collections import ConfigDict

from configs import base, presets

SIZES = {
    "1p5b": {
        "model.width": 1536,
        "model.layers": 28,
        "model.heads": 12,
        "model.kv_heads": 2,
        "model.head_size": 128,
        "model.mlp_width": 8960,
        "problems.tokenizer": "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
    },
    "7b": {
        "model.width": 3584,
        "model.layers": 28,
        "model.heads": 28,
        "model.kv_heads": 4,
        "model.head_size": 128,
        "model.mlp_width": 18944,
        "problems.tokenizer": "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
    },
}


def get_config(variant: str = "ce_gppo_1p5b") -> ConfigDict:
    """Name of a method of configs/presets.py, with or without `_official` -> the recipe."""
    method = variant.removesuffix("_official")
    source = "official" if variant.endswith("_official") else "paper"
    config = base.get_config()
    config.update_from_flattened_dict(SIZES["7b" if method.endswith("_7b") else "1p5b"])
    config.steps = 1000
    config.problems.task = ""
    config.problems.train = ("data/train.jsonl",)
    config.problems.held_out = ("data/held_out.jsonl",)
    config.model.tied_embeddings = False
    config.model.rope_theta = 10_000.0

    config.batch.prompts = 256 if source == "official" else 128  # the code filters 256 to 128
    config.batch.trained_prompts = 128
    config.batch.samples_per_prompt = 8
    config.batch.minibatch_prompts = 16  # 8 updates a rollout
    config.batch.row_tokens = 4096 + 16384
    config.batch.rows_per_microbatch = 16
    config.sampler.slots = 256
    config.sampler.max_prompt_tokens = 4096
    config.sampler.max_completion_tokens = 16384
    config.sampler.chunk_steps = 64
    config.sampler.cache_read_ladder = (2048, 4096, 8192)
    config.sampler.dtype = "bfloat16"
    config.trainer.dtype = "bfloat16"
    config.trainer.logprob_chunk_tokens = 512

    config.optimizer.learning_rate = 1e-6
    config.optimizer.warmup_steps = 10
    config.evaluation.sampling.temperature = 0.6
    config.evaluation.sampling.top_p = 0.95
    return presets.put(config, method, source)
