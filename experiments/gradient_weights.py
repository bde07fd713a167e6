"""Draws the gradient weight F of every method over the ratio: cegppo_jax/losses/plots/*.png.

    python experiments/gradient_weights.py

One picture a method, from the very functions that train: F is what multiplies A grad log pi for a
token of ratio delta, for A = +1 (blue) and A = -1 (orange). Each token is a sequence of its own.
"""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import matplotlib
import numpy as np

from cegppo_jax.losses.contract import Knobs, Method, SurrogateInputs
from cegppo_jax.losses.sequences import Sequences
from cegppo_jax.losses.surrogates import SURROGATES
from configs import base

matplotlib.use("Agg")
import matplotlib.pyplot as plt

FOLDER = Path(__file__).parent.parent / "cegppo_jax" / "losses" / "plots"
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#999999"
RATIOS = np.linspace(0.2, 2.2, 2001, dtype=np.float32)
OLD_PROBABILITY = 0.3  # dppo_* look at probabilities
# Numbers at which the curves show what the method does; the others are configs/base.py's.
OVERRIDES = {
    "ce_gppo": {"beta_low": 0.5, "beta_high": 1.0},
    "ce_gspo": {"beta_low": 0.5, "beta_high": 1.0},
    "cispo_cap": {"cispo_cap": 1.5},
    "gmpo": {"clip_low": 0.3297, "clip_high": 0.4918},
    "aspo": {"aspo_cap": 3.0},
}


def knobs_of(name: str) -> Knobs:
    """Name of a method -> its knobs: those of configs/base.py, but for OVERRIDES."""
    values = {**base.loss(), "entropy_coef": 0.0, **OVERRIDES.get(name, {})}
    names = [field.name for field in dataclasses.fields(Knobs)]
    return Knobs(**{knob: np.float32(values[knob]) for knob in names})


def gradient_weights(method: Method, knobs: Knobs, advantage: float, selected: bool) -> np.ndarray:
    """-> F at every ratio of RATIOS, `selected` being what the mini-batch's selections say."""
    shape = (1, len(RATIOS))
    log_ratio = jnp.log(jnp.asarray(RATIOS))[None]
    ones = jnp.ones(shape, jnp.float32)
    inputs = SurrogateInputs(
        log_ratio=log_ratio,
        advantages=advantage * ones,
        policy_logprobs=log_ratio + np.log(OLD_PROBABILITY),
        entropy=ones,
        old_entropy=ones,
        sequences=Sequences(jnp.arange(1, shape[1] + 1)[None], jnp.ones(shape, bool)),
        uniform=None,
        selected={name: jnp.full(shape, selected) for name in method.selections},
    )
    terms = method.surrogate(method.level(inputs), knobs)
    return np.asarray(terms.gradient)[0] / advantage


def draw(name: str, method: Method, path: Path) -> None:
    """Method -> its picture."""
    figure, axes = plt.subplots(figsize=(2.6, 1.7), dpi=110)
    knobs = knobs_of(name)
    axes.plot(RATIOS, RATIOS, color=GREY, linewidth=0.6, linestyle=":")
    for advantage, colour, width in ((1.0, BLUE, 3.0), (-1.0, ORANGE, 1.3)):  # both where equal
        weights = gradient_weights(method, knobs, advantage, False)
        axes.plot(RATIOS, weights, color=colour, linewidth=width)
        if method.selections:
            weights = gradient_weights(method, knobs, advantage, True)
            axes.plot(RATIOS, weights, color=colour, linewidth=1.0, linestyle="--")
    axes.set(xlim=(RATIOS[0], RATIOS[-1]), ylim=(-0.1, 2.3), xlabel="ratio", ylabel="F")
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    """Every method of SURROGATES."""
    FOLDER.mkdir(exist_ok=True)
    for name, method in SURROGATES.items():
        draw(name, method, FOLDER / f"{name}.png")
    print(f"{len(SURROGATES)} pictures in {FOLDER}")


if __name__ == "__main__":
    main()
