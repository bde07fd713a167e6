"""Any model or checkpoint, any problem set -> accuracy with intervals, and every completion.

    python -m cegppo_jax.evaluate --config=configs/quickstart.py --workdir=runs/quickstart
        the newest checkpoint of a run (--step: another) on the config's held-out problems
    python -m cegppo_jax.evaluate --config=configs/math_evaluation.py:aime24 --out=results/base \\
        --config.model.pretrained=deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B
        a pretrained model
    python -m cegppo_jax.evaluate --config=configs/math_evaluation.py:aime24 --out=results/ours \\
        --workdir=runs/ce_gppo_1p5b
        a run's checkpoint on other problems than those of its training
    python -m cegppo_jax.compare --first=results/base --second=results/ours

The same command again goes on where an interrupted one stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
from absl import flags, logging
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh
from ml_collections import ConfigDict
from transformers import PreTrainedTokenizerBase

from cegppo_jax.data.problems import ProblemSettings, held_out_sets, open_tokenizer
from cegppo_jax.data.prompts import render_evaluation_prompts
from cegppo_jax.data.tokenizer import ending_tokens, load_tokenizer
from cegppo_jax.evaluation.estimates import Attempt, Evaluation, summarise
from cegppo_jax.evaluation.files import (
    COMPLETIONS,
    attempt_line,
    open_completions,
    read_attempts,
    write_results,
)
from cegppo_jax.evaluation.run import Evaluator
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import Params
from cegppo_jax.models.pretrained.open import open_pretrained
from cegppo_jax.reporting.progress import Progress
from cegppo_jax.rewards.scoring import check_answers
from cegppo_jax.rewards.workers.open_scorer import open_scorer
from cegppo_jax.run import command_line
from cegppo_jax.run import directory as run_directory
from cegppo_jax.run.build import KeyPurpose, purpose_key
from cegppo_jax.run.checks import check_model_fits, check_thinking_shows
from cegppo_jax.run.saved_model import RunModel, open_run_model
from cegppo_jax.run.settings import EvaluateSettings, read_evaluate_settings
from cegppo_jax.sampling.sampler import Sampler
from cegppo_jax.sharding import make_mesh
from cegppo_jax.types import Prompt

# What may differ between an evaluation and its resumption: where and how fast it runs, not what is
# drawn.
RESUMABLE = (
    "mesh.",
    "sampler.slots",
    "sampler.prefill_prompts",
    "sampler.chunk_steps",
    "sampler.cache_read_ladder",
)


class Model(Protocol):
    """What can be evaluated: Pretrained or RunModel."""

    @property
    def model(self) -> ModelConfig:
        """Its architecture."""
        ...

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Tokens that end its completions."""
        ...

    def load(self, mesh: Mesh) -> Params:
        """-> its parameters."""
        ...

    def fingerprint(self) -> str:
        """-> what tells its weights from others that were in the same place before."""
        ...


@dataclasses.dataclass(frozen=True)
class Task:
    """An evaluation that is ready to start."""

    evaluator: Evaluator
    model: Model
    mesh: Mesh
    out: Path
    described: dict[str, Any]  # everything that its result depends on, and RESUMABLE


def prepare(config: ConfigDict, workdir: Path | None, step: int | None, out: Path | None) -> Task:
    """Config, run (None: config.model.pretrained), folder for the results (None: in the run's
    directory) -> Task; every check is done and nothing has been written.

    Raises:
      ValueError: there is no model, a setting or a problem is wrong, or `out` holds something else.
    """
    settings = read_evaluate_settings(config)
    model, tokenizer, what = open_model(settings, workdir, step, out)
    mesh = make_mesh(settings.mesh)
    check_model_fits(settings.sampler, model.model, tokenizer, mesh)
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
    described = what | {n: v for n, v in dataclasses.asdict(settings).items() if n != "model"}
    described |= {"weights": model.fingerprint(), "prompts": prompts_digest(prompts)}
    if out is None:
        assert workdir is not None
        assert isinstance(model, RunModel)
        out = workdir / "evaluations" / f"step{model.step}-{digest(described)}"
    check_out(out, described)
    ends = ending_tokens(tokenizer, model.eos_ids)
    evaluator = Evaluator(
        sampler=Sampler(mesh, model.model, settings.sampler, ends),
        prompts=prompts,
        tokenizer=tokenizer,
        samples_per_problem=settings.evaluation.samples_per_problem,
        sampling=settings.evaluation.sampling,
        key=purpose_key(settings.seed, KeyPurpose.EVALUATION),
        # Last: it starts processes, which an error behind it would leave
        scorer=open_scorer(settings.reward, problems),
    )
    return Task(evaluator, model, mesh, out, described)


def open_model(
    settings: EvaluateSettings, workdir: Path | None, step: int | None, out: Path | None
) -> tuple[Model, PreTrainedTokenizerBase, dict[str, Any]]:
    """The arguments of prepare -> what to evaluate, its tokenizer, and how to name it.

    Raises:
      ValueError: there is no model, or a flag or setting does not go with it.
    """
    name = settings.model.pretrained
    if workdir is not None:
        run = open_run_model(workdir, step)
        check_tokenizer_of_run(settings.problems, workdir)
        return run, load_tokenizer(run.tokenizer), {"run": str(workdir), "step": run.step}
    if not name:
        raise ValueError(
            "nothing to evaluate: give a run (--workdir) or a model (--config.model.pretrained)"
        )
    if out is None:
        raise ValueError("a pretrained model has no directory for its results: give --out")
    if step is not None:
        raise ValueError(f"--step={step}: a pretrained model has no steps; give a run (--workdir)")
    return open_pretrained(name), open_tokenizer(settings.problems, name), {"pretrained": name}


def digest(described: dict[str, Any]) -> str:
    """What an evaluation's result depends on -> 8 hexadecimal digits."""
    flat = {
        name: value
        for name, value in flatten_dict(described, sep=".").items()
        if not name.startswith(RESUMABLE)
    }
    text = json.dumps(flat, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def prompts_digest(prompts: Sequence[Prompt]) -> str:
    """Prompts -> 16 hexadecimal digits of what is asked and what the answers are: a problem file
    that has changed since, or a tokenizer, must not go on with the completions that are there.
    """
    asked = [(one.problem.id, one.problem.answer, one.tokens) for one in prompts]
    return hashlib.blake2b(json.dumps(asked).encode(), digest_size=8).hexdigest()


def check_tokenizer_of_run(settings: ProblemSettings, workdir: Path) -> None:
    """Raises ValueError when a tokenizer or options are asked for that are not the run's: a run is
    evaluated with its own, which would otherwise win in silence.
    """
    saved = run_directory.load_config(workdir)["problems"]
    for name in ("tokenizer", "template_options"):
        asked, own = getattr(settings, name), saved[name]
        if asked and json.dumps(asked) != json.dumps(own):
            raise ValueError(
                f"problems.{name} = {asked!r}, and a run is evaluated with its own tokenizer "
                f"({own!r}): leave it out, or export the run and evaluate the export"
            )


def check_out(out: Path, described: dict[str, Any]) -> None:
    """Raises ValueError when the folder holds anything but this evaluation, begun or finished, or
    its completions cannot be read.
    """
    if (out / "config.json").exists():
        saved = run_directory.load_config(out)
        run_directory.check_same(saved, described, out, RESUMABLE)
        if (out / COMPLETIONS).exists():
            read_attempts(out / COMPLETIONS)
    elif run_directory.is_occupied(out):
        raise ValueError(f"{out} is not empty and holds no evaluation: choose another --out")


def evaluate(task: Task) -> Evaluation:
    """Task -> Evaluation; completions.jsonl grows as they end, evaluation.json and problems.csv
    come at the end.
    """
    task.out.mkdir(parents=True, exist_ok=True)
    run_directory.write_json(task.out / "config.json", task.described)
    evaluator = task.evaluator
    total = len(evaluator.prompts) * evaluator.samples_per_problem
    with (
        evaluator.scorer,
        open_completions(task.out) as file,
        Progress(total, "evaluation", "evaluation") as progress,
    ):
        attempts = read_attempts(task.out / COMPLETIONS)
        if attempts:
            progress.message(f"{len(attempts):,} of {total:,} completions are there already")
        began, before = time.perf_counter(), len(attempts)
        if before < total:
            with jax.set_mesh(task.mesh):
                params = task.model.load(task.mesh)
                done = {(attempt.problem, attempt.sample) for attempt in attempts}
                for attempt in evaluator.attempts(params, done):
                    file.append([attempt_line(attempt)])
                    attempts.append(attempt)
                    progress.update(len(attempts), shown(attempts, before, began))
    evaluation = summarise(attempts)
    seconds = time.perf_counter() - began
    write_results(task.out, evaluation, attempts, seconds if before == 0 else None)
    return evaluation


def shown(attempts: Sequence[Attempt], before: int, began: float) -> dict[str, float]:
    """Attempts so far, how many there were at the start, and when that was -> what the progress
    shows.
    """
    count, seconds = len(attempts), time.perf_counter() - began
    return {
        "reward/correct_fraction": sum(a.outcome == "correct" for a in attempts) / count,
        "rollout/truncated_fraction": sum(a.stop_reason == "length" for a in attempts) / count,
        "rollout/completion_tokens_mean": sum(a.tokens for a in attempts) / count,
        "rollout/tokens_per_second": sum(a.tokens for a in attempts[before:]) / seconds,
    }


def main(argv: Sequence[str]) -> None:
    """Command line -> a folder of results and a table of text."""
    del argv
    logging.set_verbosity(logging.WARNING)
    values = flags.FLAGS
    paths = [Path(one) if one else None for one in (values.workdir, values.out)]
    with command_line.ends_on_bad_input():
        task = prepare(values.config, paths[0], values.step, paths[1])
    try:
        evaluation = evaluate(task)
    except KeyboardInterrupt:
        raise SystemExit("stopped; the same command goes on from there") from None
    print(f"\n{evaluation}\n{task.out}: evaluation.json problems.csv completions.jsonl")


if __name__ == "__main__":
    flags.DEFINE_string("out", None, "folder for the results; default: in the run's directory")
    flags.DEFINE_integer("step", None, "of the run's checkpoint; default: the newest")
    command_line.run(main, workdir_required=False)
