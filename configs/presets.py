"""The methods of the CE-GPPO paper (arXiv 2509.20712) with its settings, to put on any recipe.

    config = presets.put(base.get_config(), "ce_gppo_1p5b", "official")
    cegppo train --config=configs/r1_distill_qwen_1p5b.py:ce_gppo_official ...

`paper` is what the paper says, `official` what the authors' code does (Kwai-Klear/CE-GPPO at
10558fe). Where they differ, or the paper is silent:

    setting                                 paper          official
    loss.wrappers                           none           dual_clip, at 10
    loss.positive_lm_coef                   0              0.1
    loss.aggregation                        token_mean     microbatch_token_mean, of 1 sequence
    advantage.std_ddof                      0              1
    optimizer.decay_norms_and_embeddings    False          True
    optimizer.warmup_starts_at_zero         False          True: 0, 0.1, 0.2, ... of the peak
    batch.dynamic_sampling                  none           filter: uniform groups, no refill

Both keep the rate constant after the warm-up and count its steps in rollout steps, not in updates.
The peak (1e-6) and the length of the warm-up (10 steps) depend on the model and the run: recipes
set them, paper_scale.py to the authors' values.
"""

from typing import Any

from ml_collections import ConfigDict

# One value each, so that no preset inherits a number from the recipe that it is put on.
SHARED: dict[str, Any] = {
    "loss.wrappers": (),
    "loss.aggregation": "token_mean",
    "loss.kl_place": "none",
    "loss.kl_coef": 0.0,
    "loss.positive_lm_coef": 0.0,
    "loss.clip_low": 0.2,
    "loss.clip_high": 0.2,
    "advantage.estimator": "group_normalised",
    "advantage.std_ddof": 0,
    "advantage.std_epsilon": 1e-6,
    "loss.beta_low": 0.5,
    "loss.beta_high": 1.0,
    "batch.dynamic_sampling": "none",
    "optimizer.decay_norms_and_embeddings": False,
    "optimizer.warmup_starts_at_zero": False,
    "optimizer.schedule": "constant",
    "steering.beta_schedule.kind": "constant",
    "steering.beta_schedule.steps": (),
    "steering.beta_schedule.beta_low": (),
    "steering.beta_schedule.beta_high": (),
    "steering.controller.enabled": False,
    "steering.guard.floor": 0.0,
    "steering.guard.ceiling": float("inf"),
    "steering.guard.rollback": False,
    "steering.entropy_bonus.coef": 0.0,
    "steering.entropy_bonus.target": 0.0,
    "mismatch.correction": "none",
    "reward.overlong_policy": "keep",
    "reward.outcomes.correct": 1.0,
    "reward.outcomes.wrong": -1.0,
    "reward.outcomes.unparsed": -1.0,
}

METHODS: dict[str, dict[str, Any]] = {
    # Table 1; (0.5, 1) is also the default that the paper recommends
    "ce_gppo_1p5b": {"loss.surrogate": "ce_gppo", "loss.beta_low": 0.5, "loss.beta_high": 1.0},
    "ce_gppo_7b": {"loss.surrogate": "ce_gppo", "loss.beta_low": 0.75, "loss.beta_high": 1.0},
    # Fig. 6: explore until step 585, then exploit
    "ce_gppo_schedule": {
        "loss.surrogate": "ce_gppo",
        "loss.beta_low": 0.0,
        "loss.beta_high": 1.0,
        "steering.beta_schedule.kind": "piecewise",
        "steering.beta_schedule.steps": (585,),
        "steering.beta_schedule.beta_low": (0.5,),
        "steering.beta_schedule.beta_high": (1.0,),
    },
    "gppo": {"loss.surrogate": "gppo"},
    # Appendix A.1: "DAPO" is GRPO with clip-higher and nothing else, CISPO has 0.2 on both sides
    "grpo": {"loss.surrogate": "ppo_clip"},
    "dapo": {"loss.surrogate": "ppo_clip", "loss.clip_high": 0.28},
    "cispo": {"loss.surrogate": "cispo"},
    "gspo": {
        "loss.surrogate": "gspo",
        "loss.clip_low": 3e-4,
        "loss.clip_high": 4e-4,
        "loss.aggregation": "sequence_mean",
    },
    # Fig. 5: GRPO with an entropy bonus
    "grpo_entropy_0p001": {"loss.surrogate": "ppo_clip", "steering.entropy_bonus.coef": 0.001},
    "grpo_entropy_0p003": {"loss.surrogate": "ppo_clip", "steering.entropy_bonus.coef": 0.003},
}

SOURCES: dict[str, dict[str, Any]] = {
    "paper": {},
    "official": {
        "loss.wrappers": ("dual_clip",),
        "loss.dual_clip": 10.0,
        "loss.positive_lm_coef": 0.1,
        "advantage.std_ddof": 1,
        "loss.aggregation": "microbatch_token_mean",
        # 32 ranks hold 4 sequences of a mini-batch each, in micro-batches of one or two
        "loss.emulated_microbatch_sequences": 1,
        "optimizer.decay_norms_and_embeddings": True,
        "optimizer.warmup_starts_at_zero": True,
        "batch.dynamic_sampling": "filter",
    },
}


def put(config: ConfigDict, method: str, source: str = "paper") -> ConfigDict:
    """Puts a method of the paper on a recipe, with the settings of the paper or of the authors'
    code.

    Raises:
      ValueError: there is no such method or source.
    """
    for name, table in ((method, METHODS), (source, SOURCES)):
        if name not in table:
            raise ValueError(f"no preset {name!r}; there are {sorted(table)}")
    config.update_from_flattened_dict({**SHARED, **METHODS[method], **SOURCES[source]})
    return config
