"""E6, open in the paper: preservation at the level of sequences, and preservation by chance.

cegppo sweep experiments/paper/e6_sequences.py --run --jobs=2 --dir=runs/paper
"""

from cegppo_jax.sweeps.arms import Arms, arm, chain, product, seeds

QUESTION = (
    "Does GSPO gain from keeping bounded gradients of clipped sequences, and what does it cost to "
    "keep each clipped token's gradient by chance, with the same expectation?"
)
PREDICTION = (
    "ce_gspo moves further than gspo, which clips more than a tenth of its tokens, and gains "
    "pass@1 by more than the interval of five paired seeds. Keeping a gradient with probability "
    "0.25 at four times its size costs nothing that five seeds show in pass@1, at a gradient norm "
    "some percent higher, since few tokens are clipped."
)
METRIC = "evaluation/accuracy"
ALSO = (
    "evaluation/pass_at_n",
    ("policy/entropy", 10),
    ("policy/clip_fraction_low", 10),
    ("policy/clip_fraction_high", 10),
    ("update/grad_norm", 10),
)
INTERVAL = {  # as in e1_methods.py
    "loss.clip_low": 0.009,
    "loss.clip_high": 0.012,
    "loss.aggregation": "sequence_mean",
}
BETAS = {"loss.beta_low": 0.5, "loss.beta_high": 1.0}


def base():
    """Returns the task."""
    from configs import chains  # here, so that --table needs no jax

    return chains.get_config()


def arms() -> Arms:
    """Returns GSPO with and without preservation, and CE-GPPO with certainty and by chance."""
    chance = {
        "loss.surrogate": "ce_gppo",
        **BETAS,
        "loss.wrappers": ("stochastic_preservation",),
        "loss.preserve_probability": 0.25,
    }
    return product(
        chain(
            arm("gspo", {"loss.surrogate": "gspo", **INTERVAL}),
            arm("ce_gspo_0.5_1", {"loss.surrogate": "ce_gspo", **BETAS, **INTERVAL}),
            arm("ce_gppo_0.5_1", {"loss.surrogate": "ce_gppo", **BETAS}),
            arm("stochastic_0.25", chance),
        ),
        seeds(0, 1, 2, 3, 4),
    )
