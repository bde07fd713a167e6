"""E1, the main table: the paper's methods on one task.

cegppo sweep experiments/paper/e1_methods.py --run --jobs=2 --dir=runs/paper
"""

from cegppo_jax.sweeps.arms import Arms, arm, chain, product
from experiments.paper.arms import (
    CLIPPED,
    DAPO,
    ENTROPY,
    GRPO,
    GSPO,
    SEEDS,
    SOLVED,
    ce_gppo,
    chains,
)

QUESTION = "Does CE-GPPO beat GRPO, DAPO, CISPO, GSPO and GPPO at equal steps, as the paper says?"
PREDICTION = (
    "No method's pass@1 is above GRPO's by more than the interval of five paired seeds, since a "
    "third party found +0.8 points and 0.3 % of the tokens are clipped here. REINFORCE, with one "
    "update a rollout, learns least and keeps the most entropy; GSPO, which clips more than a "
    "tenth of its tokens, learns less than GRPO. pass@8 is higher where entropy is."
)
METRIC = "evaluation/accuracy"
ALSO = (SOLVED, ENTROPY, *CLIPPED)

base = chains


def arms() -> Arms:
    """Returns the methods, GRPO first, with five seeds each."""
    methods = chain(
        GRPO,
        *(ce_gppo(low, 1.0) for low in (1.0, 0.75, 0.5, 0.25)),
        DAPO,
        arm("cispo", {"loss.surrogate": "cispo"}),
        GSPO,
        # One update a rollout: nothing can be clipped
        arm("reinforce", {"loss.surrogate": "reinforce", "batch.minibatch_prompts": 64}),
    )
    return product(methods, SEEDS)
