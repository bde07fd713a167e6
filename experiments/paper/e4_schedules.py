"""E4, betas that move: explore, then exploit (the paper's Fig. 6), and other schedules.

cegppo sweep experiments/paper/e4_schedules.py --run --jobs=2 --dir=runs/paper
"""

from cegppo_jax.sweeps.arms import Arms, arm, chain, product
from experiments.paper.arms import CLIPPED, ENTROPY, SEEDS, SOLVED, betas, ce_gppo, chains

QUESTION = (
    "Does it help to explore with (0, 1) first and to exploit with (0.5, 1) then, and does the "
    "order or the shape of the change matter?"
)
PREDICTION = (
    "No: no schedule's pass@1 differs from that of the constant (0.5, 1), or from another "
    "schedule's, by more than the interval of five paired seeds, nor does entropy, since the "
    "constants at both ends cannot be told apart here (E2). Runs that begin with (0, 1) break no "
    "more often than the constant (0.5, 1), which broke once in five."
)
METRIC = "evaluation/accuracy"
ALSO = (SOLVED, ENTROPY, *CLIPPED)
HALF, WHOLE = 20, 40  # steps

base = chains


def schedule(kind: str, begin: float, end: float, steps: int) -> dict[str, object]:
    """Returns the overrides of a beta_low that passes from one value to another, with beta_high
    at 1.
    """
    place = "steering.beta_schedule"
    knot = {f"{place}.steps": (steps,), f"{place}.beta_low": (end,), f"{place}.beta_high": (1.0,)}
    return {**betas(begin, 1.0), f"{place}.kind": kind, **knot}


def arms() -> Arms:
    """Returns both constants and four ways from one to the other, with five seeds each."""
    return product(
        chain(
            ce_gppo(0.5, 1.0),
            ce_gppo(0.0, 1.0),
            arm("explore_exploit", schedule("piecewise", 0.0, 0.5, HALF)),
            arm("exploit_explore", schedule("piecewise", 0.5, 0.0, HALF)),
            arm("linear", schedule("linear", 0.0, 0.5, WHOLE)),
            arm("cosine", schedule("cosine", 0.0, 0.5, WHOLE)),
        ),
        SEEDS,
    )
