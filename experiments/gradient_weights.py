"""Draws the gradient weight F of every method over the ratio: cegppo_jax/losses/plots/*.png.

    python experiments/gradient_weights.py

One plot for each method, drawn by the functions that train: F multiplies A grad log pi for a
token of ratio delta, for A = +1 (blue) and A = -1 (orange). Each token is a sequence by itself.
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cegppo_jax.api.plots import draw_gradient_weights
from cegppo_jax.losses.surrogates import SURROGATES

FOLDER = Path(__file__).parent.parent / "cegppo_jax" / "losses" / "plots"
RATIOS = np.linspace(0.2, 2.2, 2001, dtype=np.float32)
# Numbers at which the curves show what the method does; the others are the methods' defaults.
OVERRIDES = {
    "cispo_cap": {"cispo_cap": 1.5},
    "gmpo": {"clip_low": 0.3297, "clip_high": 0.4918},
}


def draw(name: str, path: Path) -> None:
    """Draws one method's plot into a file."""
    figure = Figure(figsize=(2.6, 1.7), dpi=110)
    axes = figure.subplots()
    draw_gradient_weights(axes, name, RATIOS, OVERRIDES.get(name, {}))
    axes.set_ylabel("F")
    axes.tick_params(labelsize=7)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, metadata={"Software": None})


def main() -> None:
    """Draws every method of SURROGATES."""
    FOLDER.mkdir(exist_ok=True)
    for name in SURROGATES:
        draw(name, FOLDER / f"{name}.png")
    print(f"{len(SURROGATES)} pictures in {FOLDER}")


if __name__ == "__main__":
    main()
