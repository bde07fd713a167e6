"""What the paper's experiments have in common: their task, their seeds and the arms they share.

An arm means the same run in every file: collect.py refuses two that differ.
"""

from typing import Any

from cegppo_jax.sweeps.arms import Arms, arm, seeds

SEEDS = seeds(0, 1, 2, 3, 4)
THREE_SEEDS = seeds(0, 1, 2)
SOLVED = "evaluation/pass_at_n"
ENTROPY = ("policy/entropy", 10)
CLIPPED = (("policy/clip_fraction_low", 10), ("policy/clip_fraction_high", 10))

PPO_CLIP = {"loss.surrogate": "ppo_clip"}
GRPO = arm("grpo", PPO_CLIP)
DAPO = arm("dapo", {**PPO_CLIP, "loss.clip_high": 0.28})

# The paper's interval for GSPO, (3e-4, 4e-4), clips 15 % of the tokens at a learning rate of 1e-6.
# Policies move further here: a trial with (0.03, 0.04) clipped 1 to 4 %, so this one is narrower.
SEQUENCE_INTERVAL = {
    "loss.clip_low": 0.009,
    "loss.clip_high": 0.012,
    "loss.aggregation": "sequence_mean",
}
GSPO = arm("gspo", {"loss.surrogate": "gspo", **SEQUENCE_INTERVAL})


def betas(low: float, high: float) -> dict[str, Any]:
    """Returns the overrides of CE-GPPO with two betas."""
    return {"loss.surrogate": "ce_gppo", "loss.beta_low": low, "loss.beta_high": high}


def ce_gppo(low: float, high: float) -> Arms:
    """Returns the arm of CE-GPPO with two betas."""
    return arm(f"ce_gppo_{low:g}_{high:g}", betas(low, high))


def chains() -> Any:
    """Returns the config of the task."""
    from configs import chains as task  # here, so that tables of finished runs need no jax

    return task.get_config()
