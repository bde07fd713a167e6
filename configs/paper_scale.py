"""Problems, batches, lengths, optimizer and evaluation of arXiv 2509.20712, for any reasoning
model: what configs/r1_distill_qwen_1p5b.py, _7b.py and qwen3_8b.py share. Not a recipe by itself.

What the paper does not state comes from the authors' scripts: Kwai-Klear/CE-GPPO at 10558fe.

Compiled for 16 TPU v5p chips, an earlier update of the 1.5B model needed 6.3 GB a chip beside the
slots' cache (experiments/README.md, entry 8). No TPU has run it.
"""

from ml_collections import ConfigDict

from configs import base, presets

TRAINING_PROBLEMS = {
    "name": "hf:Kwai-Klear/KlearReasoner-MathSub-30K:train",
    "fields": {"layout": "verl"},
}
# Of each training recipe: a method of configs/presets.py, "ce_gppo" for the one of the model's size
VARIANTS = (
    *("ce_gppo", "ce_gppo_schedule", "gppo", "grpo", "dapo", "cispo", "gspo"),
    *("grpo_entropy_0p001", "grpo_entropy_0p003"),
    *("ce_gppo_official", "ce_gppo_schedule_official", "gppo_official", "grpo_official"),
    *("dapo_official", "cispo_official", "gspo_official"),
    *("grpo_entropy_0p001_official", "grpo_entropy_0p003_official"),
)
# Name: (problem set, samples a problem, longest completion in tokens). The paper: avg@32 but for
# MATH500; AIME at 32K and the others at 16K.
EVALUATIONS = {
    "aime24": ({"name": "hf:HuggingFaceH4/aime_2024:train"}, 32, 32768),
    "aime25": ({"name": "hf:math-ai/aime25:test"}, 32, 32768),
    "hmmt25": (
        {"name": "hf:MathArena/hmmt_feb_2025:train", "fields": {"id": "problem_idx"}},
        32,
        16384,
    ),
    "amc23": ({"name": "hf:math-ai/amc23:test", "fields": {"problem": "question"}}, 32, 16384),
    "math500": (
        {"name": "hf:HuggingFaceH4/MATH-500:test", "fields": {"id": "unique_id"}},
        4,
        16384,
    ),
}


def get_config(pretrained: str, variant: str) -> ConfigDict:
    """Returns the paper's training of a model by a method of configs/presets.py, with or without
    `_official`.
    """
    method = variant.removesuffix("_official")
    source = "official" if variant.endswith("_official") else "paper"
    config = base.get_config()
    config.model.pretrained = pretrained
    config.steps = 1000
    config.mesh.data = 1
    config.mesh.fsdp = -1

    config.problems.task = ""
    config.problems.train = (TRAINING_PROBLEMS,)
    config.problems.held_out = (EVALUATIONS["aime24"][0],)
    config.problems.long_prompt_policy = "skip"
    config.reward.verifier = "math"

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
    config.sampler.slot_ladder = (64, 128)
    config.sampler.dtype = "bfloat16"
    config.trainer.dtype = "bfloat16"
    config.trainer.logprob_chunk_tokens = 512

    config.optimizer.learning_rate = 1e-6
    config.optimizer.warmup_steps = 10
    config.evaluation.samples_per_problem = 32
    config.evaluation.sampling.temperature = 0.6
    config.evaluation.sampling.top_p = 0.95
    return presets.put(config, method, source)
