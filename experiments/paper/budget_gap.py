"""E8: where does the entropy budget lose touch with a network's entropy?

    python -m experiments.paper.budget_gap --seed=0 --out=experiments/paper/results/budget_0.csv
    python -m experiments.paper.budget_rows experiments/paper/results/budget_*.csv   # the table

The budget (cegppo_jax/losses/entropy_budget.py) is the change of entropy of a table of logits under
a small step of plain gradient ascent. A network under AdamW differs in three ways, told apart here
for single updates of GRPO on configs/chains.py, each from the same policy, on its own mini-batch:

    budget     the table's first-order change
    sgd        the network's first-order change along the gradient: parameters are shared
    adamw      the network's first-order change along AdamW's step, moments as training left them
    moved xK   what entropy does after AdamW's step, at K times the learning rate: step size

Derivatives are central differences of entropy along a direction. Entropy is the mean over the
mini-batch's completion tokens (`own`), or over all of the step's (`all`).

Prediction, written before the run: the budget agrees with `sgd` in rank, and less than half of its
variance is explained (r below 0.7), since all places share parameters; `adamw` follows `sgd` only
loosely, as moments mix earlier gradients in; `moved x1` follows `adamw` (r above 0.9): a step is
small enough, so what is lost is lost by sharing and by AdamW, and not by its size.
"""

import argparse
import csv
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from cegppo_jax.keys import KeyPurpose, purpose_key
from cegppo_jax.learner.learner import Learner
from cegppo_jax.learner.minibatches import Minibatch, make_minibatches
from cegppo_jax.learner.train_state import TrainState
from cegppo_jax.models.decoder import Params
from cegppo_jax.reporting.step_metrics import values_of
from cegppo_jax.rollout.rounds import draw_groups
from cegppo_jax.run.build import TrainingRun, build_run
from cegppo_jax.run.parts import policy_learner
from cegppo_jax.run.position import RunPosition
from cegppo_jax.run.settings import read_settings
from cegppo_jax.steering.steer import START, steer
from cegppo_jax.train import train_step
from configs import chains

LOOKED_AT = (0, 5, 10, 20, 30, 40)  # steps of training after which mini-batches are looked at
REACH = 0.02  # of a central difference: length of the parameters' change, relative to AdamW's at x1
TIMES = (0.1, 1.0, 10.0)  # the learning rate
FLAT = 1e8  # AdamW's epsilon, with which its step is the gradient's


def sgd_learner(run: TrainingRun) -> Learner:
    """Returns the run's learner with a step along the gradient, neither scaled nor clipped."""
    optimizer = dataclasses.replace(
        run.settings.optimizer,
        learning_rate=FLAT,
        warmup_steps=0,
        beta1=0.0,
        epsilon=FLAT,
        weight_decay=0.0,
        max_grad_norm=float("inf"),
    )
    settings = dataclasses.replace(run.settings, optimizer=optimizer)
    return policy_learner(settings, run.mesh, run.model)


@dataclasses.dataclass(frozen=True)
class Looked:
    """Measures entropy around one policy."""

    learner: Learner
    params: Params
    minibatches: Sequence[Minibatch]

    def entropies(self, params: Params) -> list[np.ndarray]:
        """Returns entropy at the tokens that train, an array [n] a mini-batch."""
        found = []
        for one in self.minibatches:
            _, entropy = self.learner.logprobs(params, one.batch)
            found.append(np.asarray(entropy, np.float64)[np.asarray(one.batch.trained_mask)])
        return found

    def change(self, direction: Params, low: float, high: float, place: int) -> tuple[float, float]:
        """Returns the change of mean entropy from params + low x direction to params + high x
        direction, on mini-batch `place` and on all.
        """
        ends = [
            self.entropies(jax.tree.map(lambda p, d, by=by: p + by * d, self.params, direction))
            for by in (low, high)
        ]
        own = ends[1][place].mean() - ends[0][place].mean()
        whole = np.concatenate(ends[1]).mean() - np.concatenate(ends[0]).mean()
        return float(own), float(whole)


def step_of(learner: Learner, state: TrainState, one: Minibatch, run: TrainingRun) -> tuple:
    """Returns (change of parameters of one update, its metrics); the state is left as it is."""
    copied = jax.tree.map(lambda leaf: leaf.copy(), state)
    knobs = run.knobs(steer(run.settings.steering, START, run.settings.base_betas, 0, None)[1])
    after, reductions, _ = learner.update(copied, one.batch, one.old, knobs, np.bool_(False))
    moved = jax.tree.map(lambda new, old: new - old, after.params, state.params)
    return moved, values_of(jax.device_get(reductions))


def norm(tree: Params) -> float:
    """Returns the length of a change of parameters."""
    return float(np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(tree))))


def looked_at(
    run: TrainingRun, plain: Learner, state: TrainState, position: RunPosition
) -> Iterator[dict[str, float]]:
    """Yields a row for each mini-batch of the step that would come next."""
    drawn = draw_groups(
        run.source,
        state.params,
        steps_done=position.step,
        next_prompt=position.next_prompt,
        carried=position.carried,
        difficulty=position.difficulty,
    )
    settings = dataclasses.replace(run.minibatches, measures_all=True)  # old log-probs of all
    prepared = make_minibatches(
        drawn.groups, state.params, None, run.learner.logprobs, settings, run.activity
    )
    looked = Looked(run.learner, state.params, prepared.minibatches)
    fresh = plain.fresh_state(jax.tree.map(lambda leaf: leaf.copy(), state.params))
    for place, one in enumerate(prepared.minibatches):
        gradient, values = step_of(plain, fresh, one, run)
        if not norm(gradient):  # every group's rewards are equal
            continue
        adamw, _ = step_of(run.learner, state, one, run)
        row = {"step": position.step, "minibatch": place, "budget": values["budget/mean"]}
        size = norm(adamw)
        for name, direction in (("sgd", gradient), ("adamw", adamw)):
            by = REACH * size / norm(direction)
            own, whole = looked.change(direction, -by, by, place)
            row[f"{name}_own"], row[f"{name}_all"] = own / (2 * by), whole / (2 * by)
        for times in TIMES:
            own, whole = looked.change(adamw, 0.0, times, place)
            row[f"moved_x{times:g}_own"], row[f"moved_x{times:g}_all"] = own, whole
        inner = sum(
            float((a * b).sum())
            for a, b in zip(jax.tree.leaves(adamw), jax.tree.leaves(gradient), strict=True)
        )
        row["cosine"] = inner / (size * norm(gradient))
        yield row


def rows_of(seed: int) -> Iterator[dict[str, float]]:
    """Trains GRPO from a seed, as `train` does, and yields the rows of LOOKED_AT."""
    config = chains.get_config("grpo")
    config.seed = seed
    run = build_run(read_settings(config))
    with run.actor.scorer, jax.set_mesh(run.mesh):
        imitator = run.imitator
        key = purpose_key(seed, KeyPurpose.INITIAL_WEIGHTS)
        for taken in imitator.train(imitator.learner.new_state(key), 0, 0):
            warm = taken.state.params
        state, position = run.learner.fresh_state(warm), RunPosition(0, 0, START)
        plain = sgd_learner(run)
        for step in range(max(LOOKED_AT) + 1):
            if step in LOOKED_AT:
                yield from looked_at(run, plain, state, position)
                print(f"seed {seed}: step {step}", flush=True)
            taken_step = train_step(run, state, position, None)
            state, position = taken_step.state, taken_step.position


def main() -> None:
    """Writes the rows of a seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows = [{k: f"{v:.6g}" for k, v in row.items()} for row in rows_of(options.seed)]
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
