"""Every knob of a run, once: its default, its unit, what it means and its symbol in the paper
(arXiv 2509.20712).

Recipes start from `get_config()` here and change values; they cannot add or misspell one, because
the config is locked and cegppo_jax/settings.py knows each by type. From the command line:
--config.loss.beta_low=0.75
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict


def vary(config: ConfigDict, variants: Mapping[str, Any], name: str) -> ConfigDict:
    """Recipe and the name of one of its variants ("" for none) -> recipe with its values.

    Raises:
      ValueError: the recipe has no variant of that name.
    """
    if name and name not in variants:
        raise ValueError(f"no variant {name!r} in this recipe; it has {sorted(variants)}")
    config.update_from_flattened_dict(variants.get(name, {}))
    return config


def optimizer(learning_rate: float, warmup_steps: int) -> ConfigDict:
    """AdamW with the paper's constants. Steps are rollout steps (warm start: its own steps)."""
    config = ConfigDict()
    config.learning_rate = learning_rate  # peak
    config.warmup_steps = warmup_steps  # linear warm-up
    config.schedule = "constant"  # after it: "constant" | "linear" | "cosine" to 0
    config.decay_steps = 0  # where a decaying schedule reaches 0
    config.beta1 = 0.9
    config.beta2 = 0.999
    config.epsilon = 1e-8
    config.weight_decay = 0.1
    config.decay_norms_and_embeddings = False  # the official code: True
    config.max_grad_norm = 1.0  # clips the gradient's global norm
    return config


def sampling(temperature: float, top_p: float) -> ConfigDict:
    """A sampling distribution."""
    config = ConfigDict()
    config.temperature = temperature  # 0: greedy
    config.top_k = 0  # 0: off
    config.top_p = top_p  # 1: off
    return config


def get_config() -> ConfigDict:
    """The paper's numbers where it has any, on a toy-sized policy; recipes set model, problems and
    sizes.
    """
    config = ConfigDict()
    config.seed = 0  # of everything random: initial weights, prompt order, samples
    config.steps = 100  # rollout steps

    config.mesh = ConfigDict()  # product = number of devices; one axis may be -1: the rest
    config.mesh.data = -1  # replicas
    config.mesh.fsdp = 1  # shards of parameters, gradients and optimizer state
    config.mesh.tensor = 1  # shards of heads, MLP and vocabulary

    config.problems = ConfigDict()
    config.problems.task = "chained_arithmetic"  # a built-in task, or "" for files
    config.problems.min_steps = 2  # difficulty of a built-in task: reasoning steps
    config.problems.max_steps = 4
    # Share of a built-in task's solutions that give the answer alone: what a warm start imitates.
    config.problems.bare_fraction = 0.0
    config.problems.train_file = ""  # jsonl with problem and answer; solution for the warm start
    config.problems.held_out_file = ""
    config.problems.tokenizer = ""  # Hugging Face id or folder; "": the task's characters
    config.problems.system_prompt = ""
    config.problems.long_prompt_policy = "error"  # over-long prompts: "error" | "skip" (counted)

    config.model = ConfigDict()  # Llama-style decoder; the vocabulary is the tokenizer's
    config.model.width = 128
    config.model.layers = 4
    config.model.heads = 4  # query heads
    config.model.kv_heads = 4  # key/value heads, a divisor
    config.model.head_size = 32
    config.model.mlp_width = 352
    config.model.rope_theta = 10_000.0
    config.model.norm_epsilon = 1e-6
    config.model.tied_embeddings = True

    config.batch = ConfigDict()
    config.batch.prompts = 128  # P, a step
    config.batch.samples_per_prompt = 8  # G, a group
    # An update each. 128 / 16 = 8 updates a step, as in the paper's scripts
    config.batch.minibatch_prompts = 16
    config.batch.row_tokens = 128  # C: sequences are packed into rows of this length
    config.batch.rows_per_microbatch = 16  # R: rows that go through the model at once

    config.sampler = ConfigDict()
    config.sampler.slots = 128  # S: completions decoded at once
    config.sampler.prefill_prompts = 16  # prompts of one prefill
    config.sampler.max_prompt_tokens = 16
    config.sampler.max_completion_tokens = 48
    config.sampler.chunk_steps = 8  # decode steps between two looks of the host
    # Shorter reads of the cache to compile besides the whole: (512, 2048) for long completions
    config.sampler.cache_read_ladder = ()
    config.sampler.dtype = "float32"  # "bfloat16" on TPU

    config.sampling = sampling(temperature=1.0, top_p=1.0)  # of rollouts

    config.reward = ConfigDict()
    config.reward.verifier = "final_answer"
    config.reward.outcomes = ConfigDict()
    config.reward.outcomes.correct = 1.0
    config.reward.outcomes.wrong = -1.0
    config.reward.outcomes.unparsed = -1.0  # no answer could be read

    config.advantage = ConfigDict()  # A = (r - mean of group) / (std of group + epsilon)
    config.advantage.std_ddof = 0  # the official code: 1
    config.advantage.std_epsilon = 1e-6

    config.loss = ConfigDict()
    config.loss.surrogate = "ce_gppo"  # a name in cegppo_jax/losses/surrogates.py
    config.loss.clip_low = 0.2  # epsilon_l: the interval is [1 - clip_low, 1 + clip_high]
    config.loss.clip_high = 0.2  # epsilon_h
    # Beta_1: gradient kept left of it (NA&LP). More: entropy falls faster
    config.loss.beta_low = 0.5
    # Beta_2: gradient kept right of it (PA&LP). More: entropy falls slower
    config.loss.beta_high = 1.0

    config.trainer = ConfigDict()
    # Of activations; "bfloat16" on TPU. Log-probs and losses stay float32
    config.trainer.dtype = "float32"
    # Recompute blocks in the backward pass: less memory, more work
    config.trainer.rematerialise = True
    # Layers in one iteration of the scan; = layers: fastest for small models
    config.trainer.scan_unroll = 1
    # Tokens of a row whose logits exist at once; divides row_tokens
    config.trainer.logprob_chunk_tokens = 128

    config.optimizer = optimizer(learning_rate=1e-6, warmup_steps=10)

    config.warm_start = ConfigDict()  # supervised training on worked solutions before RL
    config.warm_start.steps = 0
    config.warm_start.sequences = 64  # (prompt, solution) pairs a step
    config.warm_start.rows_per_microbatch = 16
    config.warm_start.optimizer = optimizer(learning_rate=1e-3, warmup_steps=20)

    config.evaluation = ConfigDict()
    config.evaluation.every_steps = 5  # 0: before and after training only
    config.evaluation.problems = 256  # of a built-in task; files are evaluated whole
    config.evaluation.problems_seed = 0  # of a built-in task's held-out set
    config.evaluation.samples_per_problem = 4
    config.evaluation.sampling = sampling(temperature=0.6, top_p=0.95)

    config.checkpoint = ConfigDict()
    config.checkpoint.every_steps = 5
    config.checkpoint.keep = 2

    config.logging = ConfigDict()
    config.logging.samples_every_steps = 10  # completions with scores to samples.jsonl; 0: never
    config.logging.samples_groups = 1  # groups each time

    return config.lock()
