"""The base betas of a step: constant, or through knots (the paper's Fig. 6)."""

from __future__ import annotations

import bisect
import dataclasses
import math

from cegppo_jax.read_settings import check_choice, check_fields
from cegppo_jax.steering.betas import Betas

# Share of the way from one knot to the next, in [0, 1] -> weight of the next.
SHAPES = {
    "constant": lambda share: 0.0,
    "piecewise": lambda share: float(share >= 1),
    "linear": lambda share: share,
    "cosine": lambda share: 0.5 * (1 - math.cos(math.pi * share)),
}


@dataclasses.dataclass(frozen=True)
class BetaScheduleSettings:
    """Knots that the base betas pass through, starting from the run's betas at step 0."""

    kind: str  # a name in SHAPES: how they pass from knot to knot; "constant" has no knots
    steps: tuple[int, ...]  # of the knots, 0-based; the paper's Fig. 6: (585,), from base (0, 1)
    beta_low: tuple[float, ...]  # from that step on; Fig. 6: (0.5,)
    beta_high: tuple[float, ...]  # Fig. 6: (1.0,)

    def __post_init__(self) -> None:
        place = "steering.beta_schedule"
        check_choice(f"{place}.kind", self.kind, SHAPES)
        equal = len(self.steps) == len(self.beta_low) == len(self.beta_high)
        check_fields(place, self, "steps beta_low beta_high", equal, "one of each for every knot")
        fits = (self.kind == "constant") != bool(self.steps)
        check_fields(place, self, "kind steps", fits, "every kind but 'constant' has knots")
        rises = list(self.steps) == sorted({step for step in self.steps if step > 0})
        check_fields(place, self, "steps", rises, "they rise strictly, from 1 or later")

    @property
    def knots(self) -> list[Betas]:
        """The betas at each of `steps`."""
        return [Betas(*pair) for pair in zip(self.beta_low, self.beta_high, strict=True)]


def scheduled_betas(settings: BetaScheduleSettings, base: Betas, step: int) -> Betas:
    """Returns the base betas of a step (0-based). The last knot holds to the end.

    Between knots a and b: a + weight (b - a), with the weight of SHAPES.
    """
    passed = bisect.bisect_right(settings.steps, step)  # knots at or before the step
    starts, betas = (0, *settings.steps), [base, *settings.knots]
    if passed == len(settings.steps):
        return betas[-1]
    begin, end = starts[passed], starts[passed + 1]
    weight = SHAPES[settings.kind]((step - begin) / (end - begin))
    before, after = betas[passed], betas[passed + 1]
    return Betas(
        before.low + weight * (after.low - before.low),
        before.high + weight * (after.high - before.high),
    )
