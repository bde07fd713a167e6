"""What a loss is made of, as a config says it: typed and checked."""

from __future__ import annotations

import dataclasses

from cegppo_jax.losses.aggregation import AGGREGATIONS
from cegppo_jax.losses.contract import Knobs, Method
from cegppo_jax.losses.entropy_budget import HIGH_PROBABILITY
from cegppo_jax.losses.kl import BY_PLACE, KL_ESTIMATORS, OF_A_KL
from cegppo_jax.losses.surrogates import SURROGATES
from cegppo_jax.losses.wrappers import WRAPPERS, wrapped
from cegppo_jax.read_settings import check_at_least, check_choice, check_finite

KL_PLACES = ("none", "loss", "reward")
# A negative beta pulls clipped tokens back towards the interval.
SIGNED = ("beta_low", "beta_high", "covariance_low")
# Infinity is no limit.
MAY_BE_INFINITE = (
    "clip_high",
    "cispo_cap",
    "aspo_cap",
    "dppo_cap",
    "divergence_low",
    "divergence_high",
    "decay_high",
    "covariance_high",
    "dual_clip",
    "entropy_ratio_low",
    "entropy_ratio_high",
)


@dataclasses.dataclass(frozen=True)
class LossSettings:
    """Which method, what is around it, and its numbers (those that are Knobs: see there)."""

    surrogate: str
    wrappers: tuple[str, ...]  # names in WRAPPERS, the first innermost
    aggregation: str
    emulated_microbatch_sequences: int  # of aggregation "microbatch_token_mean"
    high_probability: str  # the entropy budget's criterion
    kl_place: str  # of the KL to the reference: a name in KL_PLACES
    kl_estimator: str  # a name in KL_ESTIMATORS, or "by_place": the place's own
    clip_low: float
    clip_high: float
    beta_low: float
    beta_high: float
    cispo_cap: float
    aspo_cap: float
    dppo_cap: float
    divergence_low: float
    divergence_high: float
    gate_positive: float
    gate_negative: float
    decay_low: float
    decay_high: float
    covariance_fraction: float
    covariance_low: float
    covariance_high: float
    covariance_kl_coef: float
    dual_clip: float
    preserve_probability: float
    entropy_ratio_low: float
    entropy_ratio_high: float
    top_entropy_fraction: float
    kl_coef: float
    positive_lm_coef: float

    def __post_init__(self) -> None:
        check_choice("loss.surrogate", self.surrogate, SURROGATES)
        for wrapper in self.wrappers:
            check_choice("loss.wrappers", wrapper, WRAPPERS)
        if len(set(self.wrappers)) < len(self.wrappers):
            raise ValueError(f"loss.wrappers = {self.wrappers}: each at most once")
        order = [n for n in self.wrappers if n in ("dual_clip", "stochastic_preservation")]
        if order == ["stochastic_preservation", "dual_clip"]:
            raise ValueError(
                f"loss.wrappers = {self.wrappers}: a dual clip around stochastic_preservation "
                "would see values that are scaled by 1 / q, and drop those that it should keep: "
                "name dual_clip first"
            )
        check_choice("loss.aggregation", self.aggregation, AGGREGATIONS)
        check_choice("loss.high_probability", self.high_probability, HIGH_PROBABILITY)
        check_choice("loss.kl_place", self.kl_place, KL_PLACES)
        check_choice("loss.kl_estimator", self.kl_estimator, {"by_place", *KL_ESTIMATORS})
        check_at_least(0, "loss", self, *sorted(set(self.numbers()) - set(SIGNED)))
        check_finite("loss", self, *sorted(set(self.numbers()) - set(MAY_BE_INFINITE)))
        for name in (
            "gate_positive",
            "gate_negative",
            "decay_high",
            "cispo_cap",
            "aspo_cap",
            "dppo_cap",
            "dual_clip",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"loss.{name} = {getattr(self, name)}: it is positive")
        for name in ("preserve_probability", "top_entropy_fraction"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"loss.{name} = {getattr(self, name)}: it lies in (0, 1]")
        if not self.covariance_fraction <= 1:
            raise ValueError(
                f"loss.covariance_fraction = {self.covariance_fraction}: a share, 1 at most"
            )
        if not self.covariance_low < self.covariance_high:
            raise ValueError(
                f"loss.covariance_low = {self.covariance_low} is not below loss.covariance_high = "
                f"{self.covariance_high}: no product lies between them"
            )
        if self.kl_coef and self.kl_place == "none":
            raise ValueError(
                f"loss.kl_coef = {self.kl_coef} with loss.kl_place = 'none': name the place, one "
                f"of {KL_PLACES}, or set the coefficient to 0"
            )

        self._check_kl_gradient()

    def _check_kl_gradient(self) -> None:
        """Raises ValueError for an estimator whose gradient, where it is, is not a KL's. In the
        loss with a coefficient of 0 each may be measured.
        """
        measures = self.kl_place == "loss" and not self.kl_coef
        right = OF_A_KL.get(self.kl_place)
        if right is None or self.kl_place_estimator in right or measures:
            return
        raise ValueError(
            f"loss.kl_estimator = {self.kl_estimator!r} with loss.kl_place = {self.kl_place!r}: "
            f"its expected gradient there is not a KL's (losses/kl.py); set kl_estimator to "
            f"{' or '.join(map(repr, right))}, or leave it at 'by_place' "
            f"({BY_PLACE[self.kl_place]!r})"
        )

    @property
    def kl_place_estimator(self) -> str:
        """-> the KL's estimator in use; of no meaning without a place."""
        if self.kl_estimator == "by_place":
            return BY_PLACE.get(self.kl_place, "k1")
        return self.kl_estimator

    def numbers(self) -> dict[str, float]:
        """-> the knobs that are settings, by name."""
        knobs = {field.name for field in dataclasses.fields(Knobs)}
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if name in knobs}

    def check_steered(self, moves_betas: bool) -> None:
        """Raises ValueError when steering moves the betas of a method that has none."""
        if moves_betas and not self.method().betas:
            readers = [name for name, method in SURROGATES.items() if method.betas]
            raise ValueError(
                "steering moves the betas (controller, beta_schedule, or guard.rollback with "
                f"guard.beta_step > 0), which loss.surrogate = {self.surrogate!r} does not read: "
                f"{readers} do"
            )

    def method(self) -> Method:
        """-> the surrogate inside its wrappers."""
        return wrapped(SURROGATES[self.surrogate], self.wrappers)
