"""The updates of a step: all handed to the devices, then their results, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np

from cegppo_jax.activity import UPDATE
from cegppo_jax.learner.forward import PolicyStatistics
from cegppo_jax.learner.minibatches import Minibatch, mean_entropy_change
from cegppo_jax.learner.train_state import TrainState
from cegppo_jax.losses.reduce import Reductions
from cegppo_jax.models.decoder import Params
from cegppo_jax.run.build import TrainingRun
from cegppo_jax.steering.steer import Steering


def take_updates(
    run: TrainingRun,
    state: TrainState,
    minibatches: Sequence[Minibatch],
    steering: Steering,
    finds_old: bool,
    meanwhile: Callable[[], object] | None = None,
) -> tuple[TrainState, list[Reductions], PolicyStatistics | None]:
    """Updates the policy once for each mini-batch; the first finds its own old log-probs, or is
    given them as the others are. Returns the state, the updates' reductions, on the host, and what
    the first has found (None: there was none).

    All updates are handed to the devices before any result is waited for, so that they run without
    a gap; results are then taken in order, as each update ends.

    Args:
      meanwhile: what the host does first, beside the updates.
    """
    activity, first = run.activity, None
    updates: list[Reductions] = []
    with activity.during(UPDATE):
        for minibatch in minibatches:
            with activity.compiling("update", f"the update: {run.minibatches.shape}"):
                state, reductions, found = run.learner.update(
                    state,
                    minibatch.batch,
                    minibatch.old,
                    run.knobs(steering),
                    np.bool_(finds_old and not updates),
                )
            updates.append(reductions)
            first = found if first is None else first
        if meanwhile is not None:
            meanwhile()
        for place, reductions in enumerate(updates):
            activity.at(f"{place + 1} of {len(updates)}")
            updates[place] = jax.device_get(reductions)
    return state, updates, first


class EntropyChange:
    """Measures what a step's updates do to the entropy of all its tokens, in the steps in which
    that is due (logging.entropy_change_every_steps).
    """

    def __init__(
        self,
        run: TrainingRun,
        minibatches: Sequence[Minibatch],
        params: Params,
        step: int,
        *,
        lagged: bool,
    ) -> None:
        """Before the updates. Args: params: the present ones; lagged: whether old entropies are
        those of an earlier policy, so that the present ones must be computed.
        """
        every = run.settings.logging.entropy_change_every_steps
        due = bool(every) and step % every == 0
        self._run, self._minibatches = run, minibatches if due else ()
        self._before: list[jax.Array] | None = None
        if lagged:
            logprobs = run.learner.logprobs
            self._before = [logprobs(params, one.batch)[1] for one in self._minibatches]

    def mean(self, minibatches: Sequence[Minibatch], params: Params) -> float | None:
        """After the updates: returns the mean change; None: nothing is measured. Args:
        minibatches: with all their old entropies; params: the present ones.
        """
        if not self._minibatches:
            return None
        before = self._before or [one.old.entropy for one in minibatches]
        with self._run.activity.during("measuring the change of entropy"):
            return mean_entropy_change(minibatches, before, params, self._run.learner.logprobs)
