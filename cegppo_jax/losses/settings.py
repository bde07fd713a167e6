"""Typed and checked settings of a loss."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from cegppo_jax.import_path import check_takes, named, tried
from cegppo_jax.losses.aggregation import aggregation_named
from cegppo_jax.losses.contract import (
    COMMON_NUMBERS,
    Method,
    Number,
    SurrogateInputs,
    SurrogateTerms,
)
from cegppo_jax.losses.entropy_budget import HIGH_PROBABILITY
from cegppo_jax.losses.kl import BY_PLACE, KL_ESTIMATORS, OF_A_KL
from cegppo_jax.losses.sequences import Sequences
from cegppo_jax.losses.surrogates import SURROGATES
from cegppo_jax.losses.wrappers import WRAPPERS, wrapped
from cegppo_jax.read_settings import REST, check_choice

# Other names that people type for a surrogate, and the settings that make it: methods without a
# surrogate of that name, and the presets of configs/presets.py.
_MADE_OF = {
    "ppo": "loss.surrogate=ppo_clip",
    "grpo": "loss.surrogate=ppo_clip",
    "dapo": "loss.surrogate=ppo_clip with loss.clip_high=0.28",
    "dr_grpo": "loss.surrogate=ppo_clip with advantage.estimator=group_mean and "
    "loss.aggregation=constant_length",
    "rloo": "loss.surrogate=reinforce with advantage.estimator=leave_one_out",
    "scalerl": "loss.surrogate=cispo_cap",
    "ce_gppo_1p5b": "loss.surrogate=ce_gppo with loss.beta_low=0.5 and loss.beta_high=1.0",
    "ce_gppo_7b": "loss.surrogate=ce_gppo with loss.beta_low=0.75 and loss.beta_high=1.0",
    "ce_gppo_schedule": "loss.surrogate=ce_gppo with a steering.beta_schedule",
    "grpo_entropy_0p001": "loss.surrogate=ppo_clip with steering.entropy_bonus.coef=0.001",
    "grpo_entropy_0p003": "loss.surrogate=ppo_clip with steering.entropy_bonus.coef=0.003",
}
METHOD_NAMES = {
    name + end: f"set {settings} (the paper's methods with all its numbers are in "
    "configs/presets.py: presets.put(config, NAME) in a recipe, or a variant such as "
    "--config=configs/r1_distill_qwen_1p5b.py:grpo)."
    for name, settings in _MADE_OF.items()
    for end in ("", "_official")
}
KL_PLACES = ("none", "loss", "reward")
STEERED = ("entropy_coef",)  # numbers of the loss that steering sets, not config.loss


def method_named(name: str) -> Method:
    """Returns the Method of a name in SURROGATES, or imports "package.module:attribute", a
    Method or a surrogate function.

    Raises:
      ValueError: it does not exist, the surrogate takes other arguments or returns something
        else than SurrogateTerms of its tokens, or a number that it declares cannot be told from
        another key of config.loss.
    """
    found = named("loss.surrogate", name, SURROGATES, METHOD_NAMES)
    method = found if isinstance(found, Method) else Method(found)
    if ":" in name:
        check_takes("loss.surrogate", name, method.surrogate, "inputs, knobs")
        check_own_numbers("loss.surrogate", name, method.numbers)
        check_terms("loss.surrogate", name, method)
    return method


def check_terms(place: str, name: str, method: Method) -> None:
    """Traces a user's surrogate on small arrays, which computes nothing. Raises ValueError when it
    fails, or returns something else than SurrogateTerms with an array [R, C] each.
    """
    shape = (2, 4)
    array: Any = jax.ShapeDtypeStruct(shape, jnp.float32)
    mask: Any = jax.ShapeDtypeStruct(shape, jnp.bool_)
    ids: Any = jax.ShapeDtypeStruct(shape, jnp.int32)
    inputs = SurrogateInputs(
        **dict.fromkeys(("log_ratio", "advantages", "policy_logprobs"), array),
        **dict.fromkeys(("entropy", "old_entropy"), array),
        sequences=Sequences(ids, mask),
        uniform=array if method.draws else None,
        selected=dict.fromkeys(method.selections, mask),
    )
    terms = tried(
        place,
        name,
        lambda: jax.eval_shape(
            lambda inputs, knobs: method.surrogate(method.level(inputs), knobs),
            inputs,
            method.knobs(),
        ),
    )
    if not isinstance(terms, SurrogateTerms):
        raise ValueError(
            f"{place} = {name!r} returns a {type(terms).__name__}: it needs SurrogateTerms "
            "(cegppo_jax/losses/contract.py)"
        )
    trains = {"value": terms.value, "gradient": terms.gradient}
    for field, found in {**trains, **terms.events, **terms.measured}.items():
        if found.shape != shape or (field in trains and found.dtype != jnp.float32):
            raise ValueError(
                f"{place} = {name!r} returns {field} of shape {found.shape} and type "
                f"{found.dtype} for tokens of shape {shape}: it needs one number a token, value "
                "and gradient in float32"
            )


def check_own_numbers(place: str, name: str, numbers: Mapping[str, Number]) -> None:
    """Raises ValueError when a user's method declares as a number what is not a Number, what has
    the name of another setting, or a built-in number with another default: config.loss has the
    built-in one already.
    """
    built_in = built_in_numbers()
    settings = {field.name for field in dataclasses.fields(LossSettings)} | set(STEERED)
    for own, number in numbers.items():
        if not isinstance(number, Number):
            raise ValueError(
                f"{place} = {name!r} declares {own} = {number!r}: it needs a Number "
                "(cegppo_jax/losses/contract.py)"
            )
        if own in settings or not own.isidentifier():
            raise ValueError(
                f"{place} = {name!r} declares a number {own!r}, which is the name of another "
                "setting or not a name: choose another"
            )
        if own in built_in and number.default != built_in[own].default:
            raise ValueError(
                f"{place} = {name!r} declares {own} with the default {number.default:g}, and "
                f"config.loss has a number {own} with {built_in[own].default:g}: choose another "
                "name, or the same default"
            )
        number.check(f"the default of loss.{own}", number.default)


def built_in_numbers() -> dict[str, Number]:
    """Returns every number that config.loss has: of all losses, methods and wrappers."""
    numbers = dict(COMMON_NUMBERS)
    for method in SURROGATES.values():
        numbers |= method.numbers
    for wrapper in WRAPPERS.values():
        numbers |= wrapper(SURROGATES["ppo_clip"]).numbers
    return {name: number for name, number in numbers.items() if name not in STEERED}


@dataclasses.dataclass(frozen=True)
class LossSettings:
    """Which method, what wraps it, and its numbers."""

    surrogate: str  # a name in SURROGATES, or "package.module:METHOD"
    wrappers: tuple[str, ...]  # in WRAPPERS or "package.module:function", the first innermost
    aggregation: str  # a name in AGGREGATIONS, or "package.module:function"
    emulated_microbatch_sequences: int  # of aggregation "microbatch_token_mean"
    high_probability: str  # the entropy budget's criterion
    kl_place: str  # of the KL to the reference: a name in KL_PLACES
    kl_estimator: str  # a name in KL_ESTIMATORS, or "by_place": the place's own
    # Every other key of config.loss: numbers that a method declares (contract.py: Number); those
    # that the config lacks have their defaults
    numbers: Mapping[str, float] = dataclasses.field(metadata={REST: built_in_numbers})

    def __post_init__(self) -> None:
        self._check_wrappers()
        aggregation_named(self.aggregation)
        check_choice("loss.high_probability", self.high_probability, HIGH_PROBABILITY)
        check_choice("loss.kl_place", self.kl_place, KL_PLACES)
        check_choice("loss.kl_estimator", self.kl_estimator, {"by_place", *KL_ESTIMATORS})
        known = {**built_in_numbers(), **self.method().numbers}
        for name in self.numbers.keys() - known.keys():
            near = difflib.get_close_matches(name, known, n=1)
            hint = f": did you mean {near[0]!r}?" if near else f"; it has {sorted(known)}"
            raise ValueError(f"config.loss.{name} is not a setting{hint}")
        defaults = {name: number.default for name, number in known.items()}
        object.__setattr__(self, "numbers", FrozenDict(defaults | dict(self.numbers)))
        for name, value in self.numbers.items():
            known[name].check(f"loss.{name}", value)
        low, high = self.numbers["covariance_low"], self.numbers["covariance_high"]
        if not low < high:
            raise ValueError(
                f"loss.covariance_low = {low} is not below loss.covariance_high = {high}: no "
                "product lies between them"
            )
        self._check_kl()

    def _check_wrappers(self) -> None:
        if len(set(self.wrappers)) < len(self.wrappers):
            raise ValueError(f"loss.wrappers = {self.wrappers}: each at most once")
        order = [n for n in self.wrappers if n in ("dual_clip", "stochastic_preservation")]
        if order == ["stochastic_preservation", "dual_clip"]:
            raise ValueError(
                f"loss.wrappers = {self.wrappers}: a dual clip around stochastic_preservation "
                "would see values that are scaled by 1 / q, and drop those that it should keep: "
                "name dual_clip first"
            )

    def _check_kl(self) -> None:
        """Raises ValueError for a coefficient without a place, and for an estimator whose
        gradient in that place is not a KL's. In the loss with coefficient 0, any estimator may
        be measured.
        """
        coef = self.numbers["kl_coef"]
        if coef and self.kl_place == "none":
            raise ValueError(
                f"loss.kl_coef = {coef} with loss.kl_place = 'none': name the place, one of "
                f"{KL_PLACES}, or set the coefficient to 0"
            )
        measures = self.kl_place == "loss" and not coef
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
        """The KL's estimator in use. It has no meaning without a place."""
        if self.kl_estimator == "by_place":
            return BY_PLACE.get(self.kl_place, "k1")
        return self.kl_estimator

    def with_numbers(self, **changes: float) -> LossSettings:
        """Returns the same settings with other numbers."""
        return dataclasses.replace(self, numbers={**self.numbers, **changes})

    def check_steered(self, moves_betas: bool) -> None:
        """Raises ValueError when steering moves the betas of a method that has none."""
        if moves_betas and not self.method().reads_betas:
            readers = [name for name, method in SURROGATES.items() if method.reads_betas]
            raise ValueError(
                "steering moves the betas (controller, beta_schedule, or guard.rollback with "
                f"guard.beta_step > 0), which loss.surrogate = {self.surrogate!r} does not read: "
                f"{readers} do"
            )

    def method(self) -> Method:
        """Returns the surrogate inside its wrappers."""
        method = wrapped(method_named(self.surrogate), self.wrappers)
        own = [name for name in self.wrappers if ":" in name]
        if own:
            check_own_numbers("loss.wrappers", ", ".join(own), method.numbers)
        return method
