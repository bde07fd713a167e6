"""E6, open in the paper: preservation at the level of sequences, and preservation by chance.

cegppo sweep experiments/paper/e6_sequences.py --run --jobs=2 --dir=runs/paper
"""

from cegppo_jax.sweeps.arms import Arms, arm, chain, product
from experiments.paper.arms import (
    CLIPPED,
    ENTROPY,
    GSPO,
    SEEDS,
    SEQUENCE_INTERVAL,
    SOLVED,
    betas,
    ce_gppo,
    chains,
)

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
ALSO = (SOLVED, ENTROPY, *CLIPPED, ("update/grad_norm", 10))

base = chains


def arms() -> Arms:
    """Returns GSPO with and without preservation, and CE-GPPO with certainty and by chance."""
    chance = {
        **betas(0.5, 1.0),
        "loss.wrappers": ("stochastic_preservation",),
        "loss.preserve_probability": 0.25,
    }
    kept = {**betas(0.5, 1.0), **SEQUENCE_INTERVAL, "loss.surrogate": "ce_gspo"}
    return product(
        chain(
            GSPO,
            arm("ce_gspo_0.5_1", kept),
            ce_gppo(0.5, 1.0),
            arm("stochastic_0.25", chance),
        ),
        SEEDS,
    )
