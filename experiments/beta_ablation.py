"""The paper's betas on the quickstart's task, made harder and longer: 6 arms, 5 seeds, 30 runs.

    cegppo sweep experiments/beta_ablation.py --list
    cegppo sweep experiments/beta_ablation.py --run --jobs=8
    cegppo sweep experiments/beta_ablation.py --table

Nobody has run it yet. How sweeps work: experiments/sweeps.md.
"""

from cegppo_jax.sweeps.arms import Arms, arm, chain, over, product, seeds

QUESTION = (
    "Which gradient kept outside the clip interval, left (beta_low) and right (beta_high), learns "
    "the most, and is entropy the reason?"
)
PREDICTION = (
    "As the equations of the paper's section 3.2 say, entropy ends lower the larger beta_low and "
    "higher the larger beta_high. Held-out accuracy of (0.5, 1) is above that of (0, 0), PPO's "
    "gradient; among the arms with beta_high = 1 the differences are within their intervals."
)
METRIC = "evaluation/accuracy"
ALSO = (
    ("policy/entropy", 20),
    ("reward/correct_fraction", 20),
    ("rollout/completion_tokens_mean", 20),
    ("policy/clip_fraction_low", 20),
    ("policy/clip_fraction_high", 20),
)


def base():
    """Returns the quickstart with up to six operations a problem, and four times as many steps."""
    from configs import quickstart  # here, so that --table needs no jax

    config = quickstart.get_config()
    config.steps = 200
    config.problems.max_steps = 6
    config.sampler.max_prompt_tokens = 16
    config.sampler.max_completion_tokens = 42
    config.evaluation.samples_per_problem = 8
    config.logging.entropy_change_every_steps = 10
    return config


def arms() -> Arms:
    """Returns the arms, the first as the one that the others are compared with."""
    # Of Table 1 of the paper (1.5B, 7B), of the exploring phase of its Fig. 6, and GPPO's
    betas = product(over("loss.beta_low", 0.5, 0.75, 0.0, 1.0), over("loss.beta_high", 1.0))
    others = chain(
        arm("ppo_clip", {"loss.beta_low": 0.0, "loss.beta_high": 0.0}),
        arm("right_half", {"loss.beta_low": 0.5, "loss.beta_high": 0.5}),
    )
    return product(chain(betas, others), seeds(0, 1, 2, 3, 4))
