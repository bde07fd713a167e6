"""Evaluates any model or checkpoint on any problem set: accuracy with intervals, all completions.

    cegppo evaluate --run=runs/quickstart
        the newest checkpoint of a run (--step=N: another) as its own config says
    cegppo evaluate --run=runs/quickstart --config.evaluation.sampling.temperature=0.0
        the same, greedily; results of other settings go to other folders
    cegppo evaluate --config=configs/math_evaluation.py:aime24 --run=runs/ce_gppo_1p5b
        a run's checkpoint on other problems than those of its training
    cegppo evaluate --config=configs/math_evaluation.py:aime24 --out=results/base \\
        --config.model.pretrained=deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B
        a pretrained model
    cegppo compare results/base runs/ce_gppo_1p5b
        two evaluations of the same problems, paired

Repeating the command continues an interrupted evaluation.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
from absl import flags, logging
from jax.sharding import Mesh
from ml_collections import ConfigDict
from transformers import PreTrainedTokenizerBase

from cegppo_jax import distributed
from cegppo_jax.activity import EVALUATION, Activity
from cegppo_jax.compilation import keep_compiled_programs
from cegppo_jax.console.start import ends_on_bad_input
from cegppo_jax.console.table import COMMANDS
from cegppo_jax.data.ends import describe_ends, find_ends
from cegppo_jax.data.problems import held_out_sets, open_tokenizer
from cegppo_jax.data.prompts import render_evaluation_prompts
from cegppo_jax.data.tokenizer import load_tokenizer
from cegppo_jax.evaluation.estimates import Attempt, Evaluation, summarise, truncation_advice
from cegppo_jax.evaluation.files import (
    COMPLETIONS,
    EVALUATIONS,
    attempt_line,
    open_completions,
    read_attempts,
    write_results,
)
from cegppo_jax.evaluation.run import Evaluator
from cegppo_jax.keys import KeyPurpose, purpose_key
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import Params
from cegppo_jax.models.pretrained.open import open_pretrained
from cegppo_jax.reporting.progress import Progress
from cegppo_jax.reporting.record import Unwritten
from cegppo_jax.reporting.screen import Display
from cegppo_jax.rewards.scoring import check_answers
from cegppo_jax.rewards.workers.open_scorer import open_scorer
from cegppo_jax.rollout.actor import Actor
from cegppo_jax.run import command_line
from cegppo_jax.run.checks import check_model_fits, check_thinking_shows
from cegppo_jax.run.evaluation_folder import (
    check_evaluation_folder,
    check_tokenizer_of_run,
    evaluation_digest,
    prompts_digest,
    writing_evaluation,
)
from cegppo_jax.run.memory import check_memory, evaluation_need, evaluation_sampler, float32_bytes
from cegppo_jax.run.saved_model import RunModel, open_run_model
from cegppo_jax.run.settings import EvaluateSettings, read_evaluate_settings
from cegppo_jax.run.stopping import counted_when_stopped, ends_with_a_line
from cegppo_jax.sampling.sampler import Sampler
from cegppo_jax.sharding import make_mesh
from cegppo_jax.storage.mirror import opened_folder, shown_place
from cegppo_jax.storage.writing import writing

ADVISE_FROM = 8  # truncated completions: advice is given once, while there is time to stop


class Model(Protocol):
    """What can be evaluated: Pretrained or RunModel."""

    @property
    def model(self) -> ModelConfig:
        """The model's architecture."""

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Tokens that end the model's completions."""

    def load_leaves(self, mesh: Mesh) -> Iterator[tuple[str, jax.Array]]:
        """Yields (path, stacked float32 leaf) of the parameters, one by one; leaves of layers
        are [L, ...].
        """

    def fingerprint(self) -> str:
        """Identifies the weights, as distinct from others that were in the same place before."""


@dataclasses.dataclass(frozen=True)
class PreparedEvaluation:
    """An evaluation that is ready to start."""

    evaluator: Evaluator
    model: Model
    mesh: Mesh
    out: Path
    memory: str  # what it needs of it, in words
    described: dict[str, Any]  # everything that its result depends on, and what may change
    built: dict[str, Any]  # what versions.json says that this start became


def prepare_evaluation(
    config: ConfigDict, workdir: Path | None, step: int | None, out: Path | None
) -> PreparedEvaluation:
    """Prepares an evaluation. Every check is done and nothing has been written.

    Args:
      workdir: of a run; None: config.model.pretrained.
      out: folder for the results; None: in the run's directory.

    Raises:
      ValueError: there is no model, a setting or a problem is wrong, or `out` holds something else.
    """
    settings, programs = read_evaluate_settings(config), keep_compiled_programs()
    model, tokenizer, what = open_model(settings, workdir, step, out)
    mesh = make_mesh(settings.mesh)
    sampled = model.model.on(mesh).with_tokens(tokenizer.get_vocab().values())
    check_model_fits(settings.sampler, sampled, tokenizer, mesh)
    sizes = evaluation_sampler(settings.sampler, sampled, mesh)
    memory = check_memory(evaluation_need(sampled, sizes, mesh), mesh)
    check_thinking_shows(settings.reward, tokenizer)
    sets = held_out_sets(
        settings.problems, settings.evaluation.problems, settings.evaluation.problems_seed
    )
    problems = [problem for members in sets.values() for problem in members]
    check_answers(problems, settings.reward.scoring)
    prompts = render_evaluation_prompts(
        problems,
        tokenizer,
        settings.problems.system_prompt or None,
        settings.sampler.max_prompt_tokens,
        settings.problems.instruction,
    )
    read = [field.name for field in dataclasses.fields(settings) if field.name != "model"]
    described = what | {name: config.to_dict()[name] for name in read}  # as the recipe wrote them
    described |= {"weights": model.fingerprint(), "prompts": prompts_digest(prompts)}
    defaults = command_line.default_settings()
    if out is None:
        assert workdir is not None
        assert isinstance(model, RunModel)
        out = workdir / EVALUATIONS / f"step{model.step}-{evaluation_digest(described, defaults)}"
    check_evaluation_folder(out, described, defaults)
    ends = model.eos_ids  # of a run: all that it was trained with
    if workdir is None:
        ends = find_ends(tokenizer, ends, settings.problems.ending_tokens).ids
    print(describe_ends(ends, tokenizer), programs, sep="\n", flush=True)
    activity = Activity()
    distributed.report_progress(activity.progress)
    sampler = Sampler(mesh, sampled, sizes, ends, activity)
    evaluator = Evaluator(  # last of all that can fail: the scorer starts processes
        actor=Actor(sampler, tokenizer, open_scorer(settings.reward, problems), activity),
        prompts=prompts,
        samples_per_problem=settings.evaluation.samples_per_problem,
        sampling=settings.evaluation.sampling,
        key=purpose_key(settings.seed, KeyPurpose.EVALUATION),
    )
    built = {"cache": sampler.cache}
    return PreparedEvaluation(evaluator, model, mesh, out, memory, described, built)


def open_model(
    settings: EvaluateSettings, workdir: Path | None, step: int | None, out: Path | None
) -> tuple[Model, PreTrainedTokenizerBase, dict[str, Any]]:
    """Returns the model to evaluate, its tokenizer, and how to name it. Arguments as in
    prepare_evaluation.

    Raises:
      ValueError: there is no model, or a flag or setting does not go with it.
    """
    name = settings.model.pretrained
    if workdir is not None:
        run = open_run_model(workdir, step)
        check_tokenizer_of_run(settings.problems, workdir)
        return run, load_tokenizer(run.tokenizer), {"run": shown_place(workdir), "step": run.step}
    if not name:
        raise ValueError(
            "nothing to evaluate: give a run (--run) or a model (--config.model.pretrained)"
        )
    if out is None:
        raise ValueError("a pretrained model has no directory for its results: give --out")
    if step is not None:
        raise ValueError(f"--step={step}: a pretrained model has no steps; give a run (--run)")
    opened = open_pretrained(name, settings.model.ignored_fields)
    pretrained = opened.padded(settings.model.vocabulary_multiple)
    return pretrained, open_tokenizer(settings.problems, name), {"pretrained": name}


def evaluate(task: PreparedEvaluation) -> Evaluation:
    """Task -> Evaluation; completions.jsonl grows, the other files come at the end."""
    distributed.agree("at the start", {"the settings": task.described})
    with task.evaluator.actor.scorer, writing_evaluation(task.out, task.described, task.built):
        attempts, seconds = all_attempts(task)
        evaluation = summarise(attempts)
        if distributed.is_main():
            write_results(task.out, evaluation, attempts, seconds)
    return evaluation


def all_attempts(task: PreparedEvaluation) -> tuple[list[Attempt], float | None]:
    """Returns every attempt, after those that are missing have been drawn, and the seconds that it
    took; None if some were there.
    """
    evaluator, activity = task.evaluator, task.evaluator.actor.activity
    total = len(evaluator.prompts) * evaluator.samples_per_problem
    with (
        open_completions(task.out) if distributed.is_main() else Unwritten() as file,
        Display(activity) as screen,
        Progress(total, "evaluation", screen, EVALUATION) as progress,
    ):
        screen.line(task.memory)
        if attempts := distributed.of_main(lambda: read_attempts(task.out / COMPLETIONS)):
            screen.line(f"{len(attempts):,} of {total:,} completions already exist")
        began, before, advised = time.perf_counter(), len(attempts), False
        if before < total:
            with jax.set_mesh(task.mesh), counted_when_stopped(activity, attempts, total):
                params = load_decode_copy(task)
                done = {(attempt.problem, attempt.sample) for attempt in attempts}
                for attempt in evaluator.attempts(params, done):
                    file.append([attempt_line(attempt)])
                    attempts.append(attempt)
                    values = shown(attempts, before, began)
                    progress.update(len(attempts), values)
                    cut = round(values["rollout/truncated_fraction"] * len(attempts))
                    advice = truncation_advice(cut, len(attempts))
                    if advice and cut >= ADVISE_FROM and not advised:
                        screen.line(advice)
                        advised = True
    return attempts, None if before else time.perf_counter() - began


def load_decode_copy(task: PreparedEvaluation) -> Params:
    """Loads the decode copy of the task's model. Nothing trains, so each float32 leaf is
    released as soon as it has been copied.
    """
    actor, whole = task.evaluator.actor, float32_bytes(task.model.model)
    leaves = actor.activity.loading(task.model.load_leaves(task.mesh), whole)
    return actor.sampler.decode_copy.of_leaves(leaves)


def shown(attempts: Sequence[Attempt], before: int, began: float) -> dict[str, float]:
    """Returns what the progress shows, where `before` attempts existed at the time `began`."""
    count, seconds = len(attempts), time.perf_counter() - began
    return {
        "reward/correct_fraction": sum(a.outcome == "correct" for a in attempts) / count,
        "rollout/truncated_fraction": sum(a.stop_reason == "length" for a in attempts) / count,
        "rollout/completion_tokens_mean": sum(a.tokens for a in attempts) / count,
        "rollout/tokens_per_second": sum(a.tokens for a in attempts[before:]) / seconds,
    }


def main(argv: Sequence[str]) -> None:
    """Evaluates as the command line says: a folder of results and a table."""
    del argv
    logging.set_verbosity(logging.WARNING)
    values = flags.FLAGS
    with contextlib.ExitStack() as stack:
        with ends_on_bad_input():
            workdir, out = (
                None if text is None else stack.enter_context(opened_folder(name, text))
                for name, text in (("--run", values.run), ("--out", values.out))
            )
            if values.config is None:
                raise ValueError(
                    "nothing to evaluate: give a run (--run), or a config and a model (--config, "
                    "--config.model.pretrained), as in: cegppo evaluate "
                    f"{COMMANDS['evaluate'].example}"
                )
            task = prepare_evaluation(values.config, workdir, values.step, out)
        with ends_with_a_line(), writing(task.out):
            evaluation = evaluate(task)
        files = "evaluation.json problems.csv completions.jsonl"
        print(f"\n{evaluation}\n{shown_place(task.out)}: {files}")


if __name__ == "__main__":
    command_line.run("evaluate", main)
