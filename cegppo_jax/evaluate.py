"""Parameters, held-out problems -> accuracy with its interval, by the sampler that trains.

python -m cegppo_jax.evaluate --config=configs/quickstart.py --workdir=runs/quickstart
evaluates the newest checkpoint of a run and writes evaluation.json into its directory.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from absl import flags, logging
from ml_collections import ConfigDict

from cegppo_jax import command_line, run_directory
from cegppo_jax.checkpoint import Checkpointer
from cegppo_jax.models.decoder import Params
from cegppo_jax.parts import KeyPurpose, Parts, build_parts
from cegppo_jax.rollout import collect_rollouts
from cegppo_jax.run_state import restore_state
from cegppo_jax.settings import read_settings
from cegppo_jax.types import Outcome, Rollout, StopReason

BOOTSTRAP_RESAMPLES = 2000

# What a command that evaluates may set otherwise than the run that trained.
EVALUATION_MAY_CHANGE = (
    "steps",
    "mesh.",
    "batch.",  # rows must hold the sampler's longest sequence, evaluated or trained
    "trainer.",
    "sampler.",
    "evaluation.",
    "reward.",
    "problems.held_out_file",
    "checkpoint.",
    "logging.",
)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over problems and its bootstrap 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.1%} [{self.low:.1%}, {self.high:.1%}]"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What n problems with k samples each say about a policy."""

    problems: int
    samples_per_problem: int  # k
    accuracy: Estimate  # avg@k: mean over problems of the share of correct samples
    pass_at_k: Estimate  # share of problems with at least one correct sample among the k
    truncated_fraction: float
    completion_tokens_mean: float


def summarise(rollouts: Sequence[Rollout]) -> Evaluation:
    """Rollouts of held-out problems -> Evaluation. The problems are the unit that intervals
    resample.
    """
    correct = np.asarray(
        [[score.outcome is Outcome.CORRECT for score in r.scores] for r in rollouts]
    )
    completions = [c for rollout in rollouts for c in rollout.completions]
    return Evaluation(
        problems=correct.shape[0],
        samples_per_problem=correct.shape[1],
        accuracy=bootstrap_mean(correct.mean(axis=1)),
        pass_at_k=bootstrap_mean(np.any(correct, axis=1)),
        truncated_fraction=float(
            np.mean([c.stop_reason is StopReason.LENGTH for c in completions])
        ),
        completion_tokens_mean=float(np.mean([len(c.tokens) for c in completions])),
    )


def bootstrap_mean(values: np.ndarray) -> Estimate:
    """One value a problem -> mean and percentile-bootstrap 95 % interval over problems; the same
    every time.
    """
    values = np.asarray(values, dtype=np.float64)
    random = np.random.default_rng(0)
    picks = random.integers(len(values), size=(BOOTSTRAP_RESAMPLES, len(values)))
    low, high = np.percentile(values[picks].mean(axis=1), [2.5, 97.5])
    return Estimate(float(values.mean()), float(low), float(high))


def evaluate_policy(parts: Parts, params: Params) -> tuple[Evaluation, dict[str, float]]:
    """Stacked parameters -> Evaluation on the run's held-out problems, and its metrics.

    Every evaluation of a run draws with the same keys, so that two of them differ by their policies
    alone.
    """
    settings = parts.settings.evaluation
    began = time.perf_counter()
    rollouts, _ = collect_rollouts(
        parts.sampler,
        params,
        parts.held_out_prompts,
        settings.samples_per_problem,
        tokenizer=parts.problems.tokenizer,
        scorer=parts.scorer,
        sampling=settings.sampling,
        key=parts.key(KeyPurpose.EVALUATION),
        policy_version=0,
    )
    evaluation = summarise(rollouts)
    return evaluation, {
        "evaluation/accuracy": evaluation.accuracy.mean,
        "evaluation/accuracy_low": evaluation.accuracy.low,
        "evaluation/accuracy_high": evaluation.accuracy.high,
        "time/evaluation_seconds": time.perf_counter() - began,
    }


def evaluate_run(config: ConfigDict, workdir: Path) -> Evaluation:
    """Config and directory of a run -> Evaluation of its newest checkpoint, written to
    evaluation.json.

    The config may differ from the run's in what to evaluate, how and where (EVALUATION_MAY_CHANGE),
    not in what was trained.

    Raises:
      ValueError: the directory holds no checkpoint, or that of another config.
    """
    settings = read_settings(config)
    saved = run_directory.load_config(workdir)
    run_directory.check_same(saved, config.to_dict(), workdir, EVALUATION_MAY_CHANGE)
    parts = build_parts(settings)
    with (
        parts.scorer,
        jax.set_mesh(parts.mesh),
        Checkpointer(workdir / "checkpoints", settings.checkpoint.keep) as checkpointer,
    ):
        restored = restore_state(parts, checkpointer)
        if restored is None:
            raise ValueError(f"{workdir} has no finished checkpoint yet: train first")
        state, position = restored
        evaluation, metrics = evaluate_policy(parts, state.params)
    run_directory.write_json(
        workdir / "evaluation.json",
        {
            "step": position.step,
            "sampling": dataclasses.asdict(settings.evaluation.sampling),
            "seconds": metrics["time/evaluation_seconds"],
            **dataclasses.asdict(evaluation),
        },
    )
    return evaluation


def main(argv: Sequence[str]) -> None:
    """Command line -> evaluation.json and a line of text."""
    del argv
    logging.set_verbosity(logging.WARNING)
    workdir = Path(flags.FLAGS.workdir)
    with command_line.ends_on_bad_input():
        evaluation = evaluate_run(flags.FLAGS.config, workdir)
    k = evaluation.samples_per_problem
    print(
        f"{evaluation.problems} held-out problems x {k} samples: accuracy (avg@{k}) "
        f"{evaluation.accuracy}, "
        f"pass@{k} {evaluation.pass_at_k}, {evaluation.truncated_fraction:.1%} truncated; "
        f"written to {workdir / 'evaluation.json'}"
    )


if __name__ == "__main__":
    command_line.run(main)
