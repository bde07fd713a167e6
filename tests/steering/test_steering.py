"""Entropy, steered: each rule by hand, the controller against a plant, the state through JSON."""

import dataclasses
import json
import math

import numpy as np
import pytest

from cegppo_jax.steering.betas import Betas
from cegppo_jax.steering.bonus import EntropyBonusSettings, adapt_entropy_coef
from cegppo_jax.steering.controller import ControllerSettings, ControllerState, control
from cegppo_jax.steering.guard import (
    ROLLBACKS,
    GuardAction,
    GuardSettings,
    GuardState,
    guard,
    mark_candidate,
)
from cegppo_jax.steering.schedule import SHAPES, BetaScheduleSettings, scheduled_betas
from cegppo_jax.steering.settings import SteeringSettings
from cegppo_jax.steering.steer import START, SteeringState, steer

BASE = Betas(0.5, 1.0)

CONSTANT = BetaScheduleSettings("constant", (), (), ())
CONTROLLER = ControllerSettings(
    enabled=True,
    entropy_low=0.25,
    entropy_high=0.36,  # the centre is 0.3
    proportional_gain=0.5,
    integral_gain=0.1,
    smoothing=0.0,
    hysteresis=0.5,
    beta_low_min=0.0,
    beta_low_max=1.0,
    beta_high_min=0.5,
    beta_high_max=2.0,
)
DISABLED = dataclasses.replace(CONTROLLER, enabled=False)
GUARD = GuardSettings(
    floor=0.1,
    ceiling=2.0,
    patience_steps=3,
    rollback=True,
    beta_step=0.25,
    max_rollbacks=2,
)
GUARD_OFF = dataclasses.replace(GUARD, floor=0.0, ceiling=math.inf, rollback=False)
BONUS = EntropyBonusSettings(coef=0.002, target=0.3, step=0.001, coef_min=0.0, coef_max=0.004)
BONUS_OFF = EntropyBonusSettings(coef=0.0, target=0.0, step=0.0, coef_min=0.0, coef_max=0.0)
STEERING = SteeringSettings(CONSTANT, CONTROLLER, GUARD, BONUS)
NOTHING = SteeringSettings(CONSTANT, DISABLED, GUARD_OFF, BONUS_OFF)


def schedule(kind, *knots):
    """(step, beta_low, beta_high), ... -> settings."""
    return BetaScheduleSettings(kind, *(tuple(column) for column in zip(*knots, strict=True)))


def controlled(settings, entropies, state=START.controller, base=BASE):
    """Entropies one after the other -> states and betas."""
    states, betas = [], []
    for entropy in entropies:
        state, one = control(settings, state, base, entropy)
        states.append(state)
        betas.append(one)
    return states, betas


def guarded(settings, entropies, state=START.guard, first_step=10):
    """Entropies of successive steps -> last state and all actions."""
    actions = []
    for step, entropy in enumerate(entropies, first_step):
        state, action = guard(settings, state, entropy, step)
        actions.append(action.value)
    return state, actions


# The schedule


def test_constant_betas_are_the_base():
    assert {scheduled_betas(CONSTANT, BASE, step) for step in (0, 1, 10**6)} == {BASE}


def test_piecewise_is_the_papers_figure_6():
    """(0, 1) until step 585, then (0.5, 1)."""
    settings, base = schedule("piecewise", (585, 0.5, 1.0)), Betas(0.0, 1.0)
    for step in (0, 1, 584):
        assert scheduled_betas(settings, base, step) == (0.0, 1.0)
    for step in (585, 586, 1000):
        assert scheduled_betas(settings, base, step) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("kind", "step", "low", "high"),
    [
        ("piecewise", 9, 0.5, 1.0),
        ("piecewise", 10, 0.1, 2.0),
        ("piecewise", 29, 0.1, 2.0),
        ("piecewise", 30, 0.9, 2.0),
        ("linear", 0, 0.5, 1.0),
        ("linear", 4, 0.34, 1.4),  # 0.5 - 0.4 x 0.4, 1 + 0.4
        ("linear", 9, 0.14, 1.9),
        ("linear", 10, 0.1, 2.0),
        ("linear", 15, 0.3, 2.0),  # 0.1 + 0.8 x 5 / 20
        ("linear", 30, 0.9, 2.0),
        ("cosine", 0, 0.5, 1.0),
        ("cosine", 5, 0.3, 1.5),  # half way is half the weight
        ("cosine", 10, 0.1, 2.0),
        ("cosine", 15, 0.1 + 0.8 * (1 - math.sqrt(0.5)) / 2, 2.0),  # 1 - cos 45 degrees
        ("cosine", 25, 0.1 + 0.8 * (1 + math.sqrt(0.5)) / 2, 2.0),
        ("cosine", 30, 0.9, 2.0),
        ("linear", 1000, 0.9, 2.0),
    ],
)
def test_knots_by_hand(kind, step, low, high):
    """Base (0.5, 1), (0.1, 2) at step 10, (0.9, 2) at step 30."""
    settings = schedule(kind, (10, 0.1, 2.0), (30, 0.9, 2.0))
    assert scheduled_betas(settings, BASE, step) == pytest.approx((low, high), abs=1e-12)


def test_shapes_start_at_0_and_moving_ones_end_at_1():
    assert {name: (shape(0), shape(1)) for name, shape in SHAPES.items()} == {
        "constant": (0, 0),
        "piecewise": (0, 1),
        "linear": (0, 1),
        "cosine": (0, 1),
    }


# The controller, by hand


def test_proportional_and_integral_parts_by_hand():
    """e = ln(0.3 / 0.2) = 0.405; u = 0.5 e + 0.1 e on the first step, 0.5 e + 0.2 e on the next."""
    error = math.log(0.3 / 0.2)
    states, betas = controlled(CONTROLLER, [0.2, 0.2])
    for n in (1, 2):
        u = 0.5 * error + 0.1 * n * error
        assert betas[n - 1] == pytest.approx((0.5 - u, 1 + u))
        assert states[n - 1].integral == pytest.approx(n * error)
        assert states[n - 1].acting


def test_too_high_an_entropy_moves_the_betas_the_other_way():
    error = math.log(0.3 / 0.45)
    _, (betas,) = controlled(CONTROLLER, [0.45])
    assert betas == pytest.approx((0.5 - 0.6 * error, 1 + 0.6 * error))
    assert betas.low > BASE.low
    assert betas.high < BASE.high


def test_smoothing_is_a_running_mean_from_the_first_measurement_on():
    settings = dataclasses.replace(CONTROLLER, smoothing=0.75)
    states, _ = controlled(settings, [0.4, 0.8, 0.1])
    # 0.75 x 0.4 + 0.25 x 0.8 = 0.5; 0.75 x 0.5 + 0.25 x 0.1 = 0.4
    assert [state.smoothed_entropy for state in states] == pytest.approx([0.4, 0.5, 0.4])


def test_disabled_controller_hands_the_base_back():
    state = ControllerState(0.4, 2.0, True)
    wild = Betas(-7.0, 9.0)
    assert control(DISABLED, state, wild, 1e-9) == (state, wild)


def test_inside_the_band_nothing_moves_however_entropy_wanders():
    wandering = 0.3 * np.exp(np.random.default_rng(0).uniform(-0.17, 0.17, 200))
    assert wandering.min() > CONTROLLER.entropy_low
    assert wandering.max() < CONTROLLER.entropy_high
    started = ControllerState(None, 1.5, False)
    states, betas = controlled(CONTROLLER, wandering, started)
    assert set(betas) == {Betas(0.5 - 0.1 * 1.5, 1 + 0.1 * 1.5)}
    assert {(state.integral, state.acting) for state in states} == {(1.5, False)}


def test_acts_from_outside_the_band_until_in_its_inner_half():
    """The half-width is ln(0.36 / 0.3) = 0.182, so the inner half is 0.3 e^-0.091 = 0.2739 and up.
    The same 0.27 is left alone on the way out and acted on on the way back.
    """
    entropies = [0.27, 0.251, 0.249, 0.27, 0.273, 0.275, 0.27, 0.251, 0.361, 0.33, 0.328]
    states, _ = controlled(CONTROLLER, entropies)
    acting = [False, False, True, True, True, False, False, False, True, True, False]
    assert [state.acting for state in states] == acting


@pytest.mark.parametrize(("hysteresis", "steps"), [(1.0, 1), (0.5, 3), (0.0, 5)])
def test_less_hysteresis_share_acts_longer(hysteresis, steps):
    settings = dataclasses.replace(CONTROLLER, hysteresis=hysteresis)
    states, _ = controlled(settings, [0.2, 0.26, 0.27, 0.28, 0.29])
    assert sum(state.acting for state in states) == steps


def test_back_inside_the_integral_part_stays_and_the_proportional_part_goes():
    states, betas = controlled(CONTROLLER, [0.2, 0.2, 0.3, 0.26])
    assert states[1].integral == states[2].integral == states[3].integral > 0
    u = 0.1 * states[1].integral
    assert betas[2] == betas[3] == (0.5 - u, 1 + u)


@pytest.mark.parametrize("entropy", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("before", [[], [0.2, 0.24], [0.2, 0.2, 0.3], [0.5]])
def test_a_measurement_that_is_not_finite_changes_nothing(entropy, before):
    settings = dataclasses.replace(CONTROLLER, smoothing=0.3)
    states, betas = controlled(settings, before)
    state, held = control(settings, [START.controller, *states][-1], BASE, entropy)
    assert (state, held) == ([START.controller, *states][-1], [BASE, *betas][-1])


@pytest.mark.parametrize("entropy", [0.0, -1e-8, 1e-300])
def test_vanished_entropy_is_as_the_smallest_one(entropy):
    _, (betas,) = controlled(CONTROLLER, [entropy])
    assert betas == (0.0, 2.0)
    assert controlled(CONTROLLER, [entropy])[0][0].integral == 0  # saturated from the first step
    slow = dataclasses.replace(CONTROLLER, proportional_gain=0.01, integral_gain=0.01)
    assert controlled(slow, [entropy])[0][0].integral == pytest.approx(math.log(0.3 / 1e-6))


def test_bounds_hold_on_a_random_walk_of_everything():
    random = np.random.default_rng(1)
    strange = [math.nan, math.inf, 0.0, -1e-9, 1e-30, 1e3]
    touched = set()
    for _ in range(200):
        lows, highs = np.sort(random.uniform(-1, 2, (2, 2)), axis=1).tolist()
        settings = dataclasses.replace(
            CONTROLLER,
            proportional_gain=float(10 ** random.uniform(-2, 2)),
            integral_gain=float(10 ** random.uniform(-2, 2)),
            smoothing=float(random.uniform(0, 0.9)),
            hysteresis=float(random.uniform()),
            beta_low_min=lows[0],
            beta_low_max=lows[1],
            beta_high_min=highs[0],
            beta_high_max=highs[1],
        )
        base = Betas(float(random.uniform(*lows)), float(random.uniform(*highs)))
        settings.check_base(base)
        entropies = 0.3 * np.exp(random.normal(0, 1, 40))
        entropies[::7] = random.choice(strange, len(entropies[::7]))
        states, betas = controlled(settings, entropies.tolist(), base=base)
        for low, high in betas:
            assert lows[0] <= low <= lows[1]
            assert highs[0] <= high <= highs[1]
            touched |= {low == lows[0], low == lows[1], high == highs[0], high == highs[1]}
        assert all(math.isfinite(state.integral) for state in states)
    assert touched == {True, False}


# The controller, against a plant


def simulate(steps, start, drift, controller, noise=0.02, seed=0):
    """A plant whose ln H integrates gain x (beta_high - beta_low) - drift(step), and noise.

    With the base betas it gains 0.1 x 0.5 = 0.05 a step. -> entropies and betas of every step.
    """
    random = np.random.default_rng(seed)
    log_entropy, state, entropies, betas = math.log(start), START.controller, [], []
    for step in range(steps):
        entropies.append(math.exp(log_entropy))
        state, one = controller(state, entropies[-1])
        betas.append(one)
        log_entropy += 0.1 * (one.high - one.low) - drift(step) + noise * random.normal()
    return np.array(entropies), np.array(betas)


def band_of(centre):
    return dataclasses.replace(
        CONTROLLER,
        entropy_low=centre / 1.2,
        entropy_high=centre * 1.2,
        integral_gain=0.02,
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.5])
@pytest.mark.parametrize("start", [0.2, 5.0])
@pytest.mark.parametrize(("centre", "drift"), [(0.05, 0.06), (0.3, 0.07), (1.0, 0.08)])
def test_the_band_is_reached_and_held_where_constant_betas_collapse(
    centre, drift, start, smoothing
):
    settings = dataclasses.replace(band_of(centre), smoothing=smoothing)

    def controller(state, entropy):
        return control(settings, state, BASE, entropy)

    entropies, betas = simulate(600, start * centre, lambda step: drift, controller)
    late = entropies[400:]
    assert np.median(late) == pytest.approx(centre, rel=0.1)
    assert np.mean((late > settings.entropy_low) & (late < settings.entropy_high)) > 0.8
    # What balances the drift is beta_high - beta_low = 10 x drift.
    assert np.mean(betas[400:, 1] - betas[400:, 0]) == pytest.approx(10 * drift, abs=0.03)

    constant, _ = simulate(600, start * centre, lambda step: drift, lambda state, _: (state, BASE))
    assert np.median(constant[400:]) < 0.05 * centre


def test_the_same_plant_gives_the_same_floats():
    def run():
        return simulate(
            300,
            0.1,
            lambda step: 0.06,
            lambda state, entropy: control(band_of(0.3), state, BASE, entropy),
        )

    for first, second in zip(run(), run(), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("sign", [1, -1])
def test_anti_windup_recovers_from_saturation_with_little_overshoot(sign):
    """A hundred steps of a drift stronger than the bounds allow, then a drift that the base betas
    balance: a third too far at most, where an integral that never stops goes 20 times too far.
    """
    settings = dataclasses.replace(band_of(0.3), beta_low_max=1.0, beta_high_max=1.5)

    def drift(step):
        return 0.05 + (sign * 0.12 if step < 100 else 0)

    def conditional(state, entropy):
        return control(settings, state, BASE, entropy)

    def winding_up(state, entropy):
        new, betas = control(settings, state, BASE, entropy)
        error = math.log(0.3 / max(entropy, 1e-6)) if new.acting else 0.0
        return dataclasses.replace(new, integral=state.integral + error), betas

    def overshoot(controller):
        entropies, betas = simulate(400, 0.3, drift, controller, noise=0.0)
        assert tuple(betas[99]) == ((0.0, 1.5) if sign > 0 else (1.0, 0.5))  # saturated
        assert sign * math.log(entropies[100] / 0.3) < -1  # and far out
        return np.max(sign * np.log(entropies[100:] / 0.3))

    assert overshoot(conditional) < math.log(1.35)
    assert overshoot(winding_up) > math.log(20)


def test_the_integral_still_shrinks_and_one_saturated_beta_does_not_stop_it():
    far_below = ControllerState(0.01, 30.0, True)  # saturated by its integral part alone
    (held,), (betas,) = controlled(CONTROLLER, [0.01], far_below)
    assert (held.integral, betas) == (30.0, (0.0, 2.0))
    (shrunk,), _ = controlled(CONTROLLER, [0.9], far_below)
    assert shrunk.integral == pytest.approx(30 + math.log(0.3 / 0.9))

    # u = 0.6 ln 3 = 0.66: beta_low is at its bound of 0, beta_high at 1.66 still below 2.
    (grown,), (betas,) = controlled(CONTROLLER, [0.1])
    assert betas == pytest.approx((0.0, 1 + 0.6 * math.log(3)))
    assert grown.integral == pytest.approx(math.log(3))
    (grown_again,), _ = controlled(CONTROLLER, [0.1], grown)
    assert grown_again.integral == pytest.approx(2 * math.log(3))


# The guard


def good_at(step):
    """-> the state at the start, with a good checkpoint of that step."""
    return dataclasses.replace(START.guard, last_good_step=step)


def test_a_candidate_is_good_once_the_next_measurement_holds():
    waiting = mark_candidate(good_at(4), 8)
    assert (waiting.candidate_step, waiting.last_good_step) == (8, 4)
    state, _ = guarded(GUARD, [0.5], waiting)
    assert state == good_at(8)
    state, _ = guarded(GUARD, [0.01], waiting)
    assert state == dataclasses.replace(good_at(4), outside_steps=1)
    assert guarded(GUARD, [math.nan], waiting)[0] == waiting  # still not measured
    # What was found bad does not become good by what comes after it.
    assert guarded(GUARD, [0.01, 0.5], waiting)[0] == good_at(4)


def test_a_rollback_does_not_return_to_a_candidate():
    waiting = mark_candidate(good_at(4), 8)
    state, actions = guarded(dataclasses.replace(GUARD, patience_steps=1), [0.01], waiting)
    assert actions == ["rollback_low"]
    assert (state.candidate_step, state.last_good_step) == (None, 4)


def test_alarms_count_steps_in_a_row_and_come_back_every_patience():
    settings = dataclasses.replace(GUARD, rollback=False)
    low = [0.09, 0.09, 0.5, 0.09, 0.05, 0.01, 0.01, 0.01, 0.01, 0.5]
    state, actions = guarded(settings, low, good_at(5))
    assert actions == [*["none"] * 5, "alarm_low", "none", "none", "alarm_low", "none"]
    assert state == good_at(5)
    _, actions = guarded(settings, [2.1] * 4)
    assert actions == ["none", "none", "alarm_high", "none"]


def test_the_limits_themselves_are_inside():
    assert guarded(GUARD, [0.1, 2.0] * 5) == (START.guard, ["none"] * 10)
    assert not any(GUARD.holds(entropy) for entropy in (0.0999, 2.001, math.nan))


def test_a_guard_that_is_off_never_acts():
    never = dataclasses.replace(GUARD_OFF, patience_steps=1)
    assert guarded(never, [0.0, -1e-9, 1e9]) == (START.guard, ["none"] * 3)


def test_a_collapsed_entropy_just_below_0_is_too_low():
    assert guarded(GUARD, [-1e-9] * 3)[1][-1] == "alarm_low"


def test_rollbacks_shift_the_betas_apart_until_they_are_used_up():
    good = good_at(8)
    state, actions = guarded(GUARD, [0.01] * 10, good)
    assert actions == [
        *("none", "none", "rollback_low"),
        *("none", "none", "rollback_low"),
        *("none", "none", "alarm_low"),
        "none",
    ]
    assert state == dataclasses.replace(good_at(8), outside_steps=4, rollbacks=2, beta_shift=0.5)


def test_a_rollback_from_above_shifts_them_together():
    state, actions = guarded(GUARD, [0.01] * 3 + [5.0] * 3, good_at(8))
    assert actions[2::3] == ["rollback_low", "rollback_high"]
    assert state == dataclasses.replace(good_at(8), rollbacks=2)
    state, _ = guarded(GUARD, [5.0] * 3, good_at(8))
    assert state == dataclasses.replace(good_at(8), rollbacks=1, beta_shift=-0.25)


def test_without_a_good_step_behind_there_is_only_the_alarm():
    assert guarded(GUARD, [0.01] * 3)[1][-1] == "alarm_low"
    assert guarded(GUARD, [0.01] * 3, good_at(12), 10)[1][-1] == "alarm_low"
    assert guarded(GUARD, [0.01] * 3, good_at(11), 10)[1][-1] == "rollback_low"
    assert guarded(GUARD, [0.01] * 3, good_at(0), 10)[1][-1] == "rollback_low"


@pytest.mark.parametrize("entropy", [math.nan, math.inf, -math.inf])
def test_the_guard_does_not_count_what_was_not_measured(entropy):
    state, actions = guarded(GUARD, [0.01, entropy, 0.01, entropy, 0.01])
    assert actions == [*["none"] * 4, "alarm_low"]
    assert guarded(GUARD, [entropy], state) == (state, ["none"])


def test_actions_are_told_apart_by_rollbacks():
    assert set(GuardAction) - set(ROLLBACKS) == {
        GuardAction.NONE,
        GuardAction.ALARM_LOW,
        GuardAction.ALARM_HIGH,
    }


# The entropy bonus


def test_adaptive_coefficient_by_hand():
    """alpha starts at 0.002 and moves by 0.001 between 0 and 0.004; the target is 0.3."""
    entropies = [0.1, 0.2, 0.29, 0.5, 0.5, 0.3, 0.5, 0.5, 0.1]
    alphas = [0.003, 0.004, 0.004, 0.003, 0.002, 0.001, 0.0, 0.0, 0.001]
    used = [0.003, 0.004, 0.004, 0.0, 0.0, 0.001, 0.0, 0.0, 0.001]
    alpha = START.entropy_alpha
    for entropy, next_alpha, coefficient in zip(entropies, alphas, used, strict=True):
        alpha, coef = adapt_entropy_coef(BONUS, alpha, entropy)
        assert (alpha, coef) == pytest.approx((next_alpha, coefficient), abs=1e-12)


def test_without_a_target_the_coefficient_is_fixed():
    """Even beyond bounds that it does not use."""
    fixed = EntropyBonusSettings(coef=0.5, target=0.0, step=0.1, coef_min=0.0, coef_max=0.1)
    for entropy in (0.0, 5.0, math.nan):
        assert adapt_entropy_coef(fixed, None, entropy) == (None, 0.5)


@pytest.mark.parametrize("alpha", [None, 0.003])
def test_an_entropy_that_was_not_measured_has_no_bonus(alpha):
    assert adapt_entropy_coef(BONUS, alpha, math.nan) == (alpha, 0.0)


# All of them


def test_nothing_switched_on_is_the_base():
    state = START
    for step, entropy in enumerate([0.5, None, 1e-9, math.nan, 1e9]):
        state, steering = steer(NOTHING, state, BASE, step, entropy)
        assert steering == (BASE, 0.0, GuardAction.NONE)
    assert state == START


def test_schedule_then_shift_then_controller():
    """Base (0, 1) -> knot (0.5, 1) -> shift 0.25: (0.25, 1.25) -> u = 0.6 ln(0.3 / 0.2)."""
    settings = dataclasses.replace(
        STEERING,
        beta_schedule=schedule("piecewise", (5, 0.5, 1.0)),
    )
    state = dataclasses.replace(START, guard=GuardState(0, 1, 0.25, None, None))
    u = 0.6 * math.log(0.3 / 0.2)
    _, steering = steer(settings, state, Betas(0.0, 1.0), 5, 0.2)
    assert steering.betas == pytest.approx((0.25 - u, 1.25 + u))
    assert steering.entropy_coef == 0.003
    # A step earlier the base is (0, 1), shifted (-0.25, 1.25), within bounds (0, 1.25).
    _, steering = steer(settings, state, Betas(0.0, 1.0), 4, 0.45)
    u = 0.6 * math.log(0.3 / 0.45)
    assert steering.betas == pytest.approx((0.0 - u, 1.25 + u))


@pytest.mark.parametrize(
    ("controller", "shift", "expected"),
    [
        (DISABLED, 0.75, (0.0, 1.75)),
        (DISABLED, -1.25, (1.75, 0.0)),
        (CONTROLLER, 0.75, (0.0, 1.75)),
        (CONTROLLER, -1.25, (1.0, 0.5)),
        (dataclasses.replace(CONTROLLER, beta_low_min=-1.0), 0.75, (-0.25, 1.75)),
    ],
)
def test_a_shift_stops_at_0_or_at_the_controllers_bounds(controller, shift, expected):
    settings = dataclasses.replace(STEERING, controller=controller)
    state = dataclasses.replace(START, guard=GuardState(0, 1, shift, None, None))
    assert steer(settings, state, BASE, 3, 0.3)[1].betas == expected


def test_a_rollback_forgets_the_entropy_of_the_policy_left_behind():
    """The balancing integral stays; the running mean and alpha wait for the restored policy."""
    state = SteeringState(
        ControllerState(0.05, 1.0, True), GuardState(2, 0, 0.0, None, 8), entropy_alpha=0.002
    )
    state, steering = steer(STEERING, state, BASE, 10, 0.02)
    assert steering == ((0.5 - 0.25 - 0.1, 1 + 0.25 + 0.1), 0.0, GuardAction.ROLLBACK_LOW)
    assert state == SteeringState(
        ControllerState(None, 1.0, False), GuardState(0, 1, 0.25, None, 8), entropy_alpha=0.002
    )
    state, steering = steer(STEERING, state, BASE, 11, 0.31)
    assert state.controller == ControllerState(0.31, 1.0, False)
    assert steering.betas == (0.5 - 0.25 - 0.1, 1 + 0.25 + 0.1)


@pytest.mark.parametrize("interrupted_at", [0, 1, 17, 39])
def test_resumed_through_json_is_uninterrupted_bit_for_bit(interrupted_at):
    settings = dataclasses.replace(
        STEERING,
        beta_schedule=schedule("cosine", (7, 0.1, 1.2), (23, 0.9, 0.9)),
        controller=dataclasses.replace(CONTROLLER, smoothing=0.3),
    )
    random = np.random.default_rng(2)
    entropies = (0.3 * np.exp(np.cumsum(random.normal(0, 0.4, 40)))).tolist()
    entropies[5], entropies[20] = None, math.nan
    entropies[25:32] = [0.03] * 7

    def run(interrupted_at):
        state, taken = START, []
        for step, entropy in enumerate(entropies):
            if step == interrupted_at:
                state = SteeringState.from_json(json.loads(json.dumps(state.to_json())))
            state, steering = steer(settings, state, BASE, step, entropy)
            taken.append(steering)
            if step == 10:
                state = dataclasses.replace(state, guard=mark_candidate(state.guard, step))
        return state, taken

    assert run(interrupted_at) == run(None)
    state, taken = run(None)
    assert GuardAction.ROLLBACK_LOW in {steering.action for steering in taken}
    assert state.controller.integral != 0
    assert len({steering.betas for steering in taken}) > 20


def test_a_measured_scalar_of_numpy_goes_through_json_as_well():
    state, _ = steer(STEERING, START, BASE, 0, np.float32(0.2))
    assert SteeringState.from_json(json.loads(json.dumps(state.to_json()))) == state


@pytest.mark.parametrize(
    ("part", "name", "message"),
    [
        (None, "entropy_alpha", r"checkpoint: steering lacks \['entropy_alpha'\]"),
        (None, "controller", r"checkpoint: steering lacks \['controller'\]"),
        ("controller", "acting", r"checkpoint: steering.controller lacks \['acting'\]"),
        ("guard", "beta_shift", r"checkpoint: steering.guard lacks \['beta_shift'\]"),
    ],
)
def test_a_state_that_lacks_a_part_is_refused(part, name, message):
    values = START.to_json()
    del (values[part] if part else values)[name]
    with pytest.raises(ValueError, match=message):
        SteeringState.from_json(values)


@pytest.mark.parametrize("part", [None, "controller", "guard"])
def test_a_state_with_an_unknown_part_is_refused(part):
    values = START.to_json()
    (values[part] if part else values)["derivative"] = 1.0
    with pytest.raises(ValueError, match=r"derivative is not a setting"):
        SteeringState.from_json(values)


# Settings that contradict themselves


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("cosin", (5,), (1.0,), (1.0,)), "kind = 'cosin' does not exist: did you mean 'cosine'?"),
        (
            ("linear", (5, 6), (1.0,), (1.0, 1.0)),
            "steps = (5, 6), beta_low = (1.0,), beta_high = (1.0, 1.0)",
        ),
        (
            ("linear", (5,), (1.0,), (1.0, 2.0)),
            "steps = (5,), beta_low = (1.0,), beta_high = (1.0, 2.0)",
        ),
        (
            ("constant", (5,), (1.0,), (1.0,)),
            "kind = 'constant', steps = (5,)",
        ),
        (
            ("piecewise", (), (), ()),
            "kind = 'piecewise', steps = ()",
        ),
        (("linear", (0,), (1.0,), (1.0,)), "steps = (0,)"),
        (("linear", (-3,), (1.0,), (1.0,)), "steps = (-3,)"),
        (("linear", (5, 5), (1.0, 1.0), (1.0, 1.0)), "steps = (5, 5)"),
        (("linear", (6, 5), (1.0, 1.0), (1.0, 1.0)), "steps = (6, 5)"),
    ],
)
def test_schedules_that_are_refused(settings, message):
    with pytest.raises(ValueError) as raised:
        BetaScheduleSettings(*settings)
    assert str(raised.value).startswith(f"steering.beta_schedule.{message}")


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        (CONTROLLER, {"entropy_low": 0.0}, "entropy_low = 0.0, entropy_high = 0.36"),
        (CONTROLLER, {"entropy_low": 0.4}, "entropy_low = 0.4, entropy_high = 0.36"),
        (CONTROLLER, {"entropy_high": math.nan}, "entropy_low = 0.25, entropy_high = nan"),
        (CONTROLLER, {"proportional_gain": -1.0}, "proportional_gain = -1.0: at least 0"),
        (CONTROLLER, {"integral_gain": -0.5}, "integral_gain = -0.5: at least 0"),
        (CONTROLLER, {"smoothing": 1.0}, "smoothing = 1.0"),
        (CONTROLLER, {"smoothing": -0.1}, "smoothing = -0.1"),
        (CONTROLLER, {"hysteresis": 1.1}, "hysteresis = 1.1"),
        (CONTROLLER, {"beta_low_min": 1.5}, "beta_low_min = 1.5, beta_low_max = 1.0"),
        (CONTROLLER, {"beta_high_max": 0.4}, "beta_high_min = 0.5, beta_high_max = 0.4"),
        (GUARD, {"floor": -0.1}, "floor = -0.1: at least 0"),
        (GUARD, {"ceiling": 0.1}, "floor = 0.1, ceiling = 0.1"),
        (GUARD, {"ceiling": math.nan}, "floor = 0.1, ceiling = nan"),
        (GUARD, {"patience_steps": 0}, "patience_steps = 0: at least 1"),
        (GUARD, {"beta_step": -0.25}, "beta_step = -0.25: at least 0"),
        (GUARD, {"max_rollbacks": -1}, "max_rollbacks = -1: at least 0"),
        (BONUS, {"coef": -0.1}, "coef = -0.1: at least 0"),
        (BONUS, {"target": -0.1}, "target = -0.1: at least 0"),
        (BONUS, {"step": -0.1}, "step = -0.1: at least 0"),
        (BONUS, {"coef_min": -0.1}, "coef_min = -0.1: at least 0"),
        (BONUS, {"coef_min": 0.003}, "coef_min = 0.003, coef = 0.002, coef_max = 0.004"),
        (BONUS, {"coef_max": 0.001}, "coef_min = 0.0, coef = 0.002, coef_max = 0.001"),
    ],
)
def test_numbers_that_are_refused(settings, changes, message):
    sections = {CONTROLLER: "controller", GUARD: "guard", BONUS: "entropy_bonus"}
    with pytest.raises(ValueError) as raised:
        dataclasses.replace(settings, **changes)
    assert str(raised.value).startswith(f"steering.{sections[settings]}.{message}")


@pytest.mark.parametrize(
    ("settings", "base", "numbers"),
    [
        (CONTROLLER, Betas(1.1, 1.0), ("low=1.0", "low=1.1")),
        (CONTROLLER, Betas(-0.1, 1.0), ("low=0.0", "low=-0.1")),
        (CONTROLLER, Betas(0.5, 0.4), ("high=0.5", "high=0.4")),
        (CONTROLLER, Betas(0.5, math.nan), ("high=2.0", "high=nan")),
        (DISABLED, Betas(-0.1, 1.0), ("beta_low = -0.1", "beta_high = 1.0", "at least 0")),
    ],
)
def test_betas_outside_the_bounds_are_refused(settings, base, numbers):
    with pytest.raises(ValueError, match=r"leave out the base|at least 0") as raised:
        settings.check_base(base)
    assert all(number in str(raised.value) for number in numbers)
    if math.isfinite(sum(base)):  # a schedule refuses the others itself
        knot = schedule("linear", (3, 0.5, 1.0), (5, *base))
        with pytest.raises(ValueError, match=r"leave out the base|at least 0"):
            SteeringSettings(knot, settings, GUARD, BONUS)


def test_betas_on_the_bounds_are_fine():
    CONTROLLER.check_base(Betas(0.0, 2.0))
    CONTROLLER.check_base(Betas(1.0, 0.5))
    DISABLED.check_base(Betas(0.0, 50.0))
    dataclasses.replace(CONTROLLER, beta_low_min=-1.0).check_base(Betas(-1.0, 1.0))
