"""Every command, once: what it does, an example, its flags, and the settings that matter to it.

`cegppo NAME` runs the module cegppo_jax/NAME.py, as `python -m cegppo_jax.NAME` does. A new command
is such a module and an entry here.
"""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from absl import flags

from cegppo_jax.console import flags as own


@dataclasses.dataclass(frozen=True)
class Command:
    """What the console knows of a command without importing it."""

    does: str  # in one line
    example: str  # its arguments
    # Defines its flags in absl's; None: the module reads its arguments and prints its help itself
    define_flags: Callable[[flags.FlagValues], None] | None
    required: tuple[str, ...] = ()  # flags that it cannot do without
    takes: tuple[str, ...] = ()  # arguments that are not flags, at most; "RUN...": any number
    settings: tuple[str, ...] = ()  # of configs/base.py: those that --help lists


COMMANDS = {
    "recipes": Command(
        "what can be run: recipes with their variants, hardware and time",
        "",
        own.define_recipes,
        takes=("FOLDER",),
    ),
    "train": Command(
        "trains a run, or resumes it; one that is complete is left as it is",
        "--config=configs/quickstart.py --workdir=runs/quickstart",
        own.define_run,
        required=("config", "workdir"),
        settings=(
            *("steps", "seed", "model.pretrained", "problems.task", "problems.train"),
            *("problems.held_out",),
            *("reward.verifier", "batch.prompts", "batch.samples_per_prompt"),
            *("batch.minibatch_prompts", "batch.dynamic_sampling"),
            *("sampler.max_completion_tokens", "sampler.slots", "advantage.estimator"),
            *("loss.surrogate", "loss.clip_low", "loss.clip_high", "loss.beta_low"),
            *("loss.beta_high", "loss.kl_place", "loss.kl_coef", "steering.controller.enabled"),
            *("optimizer.learning_rate", "optimizer.warmup_steps", "warm_start.steps"),
            *("evaluation.every_steps", "checkpoint.every_steps", "logging.writers"),
            *("mesh.fsdp", "trainer.dtype"),
        ),
    ),
    "check": Command(
        "every check of a start, in seconds and without training",
        "--config=configs/quickstart.py --workdir=runs/quickstart",
        own.define_check,
        required=("config", "workdir"),
    ),
    "plan": Command(
        "what a recipe holds, moves and costs on TPUs, compiled without any",
        "--config=configs/quickstart.py --topology=v5p:2x2x1",
        own.define_plan,
        required=("topology",),
        settings=(
            *("sampler.slots", "sampler.max_completion_tokens", "sampler.cache_read_ladder"),
            *("sampler.dtype", "batch.row_tokens", "batch.rows_per_microbatch"),
            *("trainer.dtype", "trainer.rematerialise", "trainer.logprob_chunk_tokens"),
            *("mesh.data", "mesh.fsdp", "mesh.tensor", "model.pretrained"),
        ),
    ),
    "report": Command(
        "one page of runs: curves, completions, and what a doctor reads from them",
        "runs/quickstart --out=report.html",
        own.define_report,
        takes=("RUN...",),
    ),
    "sweep": Command(
        "an experiment of several arms and seeds: its runs, table, page and jobs",
        "experiments/sweep_example.py --run --jobs=2",
        None,
    ),
    "supervised": Command(
        "trains on worked solutions alone: a warm start as a run of its own",
        "--config=configs/quickstart.py --workdir=runs/imitated",
        own.define_run,
        required=("config", "workdir"),
        settings=(
            *("warm_start.steps", "warm_start.sequences", "warm_start.rows_per_microbatch"),
            *("warm_start.optimizer.learning_rate", "warm_start.optimizer.warmup_steps"),
            *("model.pretrained", "problems.train", "problems.held_out", "seed"),
            *("evaluation.every_steps", "checkpoint.every_steps", "mesh.fsdp", "trainer.dtype"),
        ),
    ),
    "evaluate": Command(
        "accuracy of a run or a model on any problem set, with intervals",
        "--run=runs/quickstart",
        own.define_evaluate,
        settings=(
            *("model.pretrained", "problems.held_out", "problems.instruction"),
            *("problems.system_prompt", "reward.verifier", "evaluation.problems"),
            *("evaluation.samples_per_problem", "evaluation.sampling.temperature"),
            *("evaluation.sampling.top_p", "sampler.max_completion_tokens", "sampler.slots"),
            *("sampler.dtype", "mesh.fsdp", "seed"),
        ),
    ),
    "compare": Command(
        "the paired difference of two evaluations, its interval and p-value",
        "runs/grpo runs/quickstart",
        own.define_compare,
        takes=("FIRST", "SECOND"),
    ),
    "export": Command(
        "a checkpoint as a folder for transformers, vLLM and SGLang",
        "--run=runs/quickstart --out=models/quickstart",
        own.define_export,
        required=("run", "out"),
    ),
    "replay": Command(
        "computes an update again whose gradient was not finite, and finds where",
        "runs/quickstart/not_finite",
        own.define_replay,
        takes=("FOLDER",),
    ),
    "verify": Command(
        "what a verifier makes of an answer, or of a file of them",
        "--verifier=math --gold=0.5 --text='The answer is 1/2.'",
        own.define_verify,
        required=("verifier",),
    ),
    "decontaminate": Command(
        "finds training problems that an evaluation also asks",
        "--train=train.jsonl --against=test.jsonl --out=overlap.json",
        own.define_decontaminate,
        required=("train", "against", "out"),
    ),
}


def how_to_run(command: str, *arguments: str) -> str:
    """Returns a command line as it can be typed here: `cegppo ...` where that program stands
    beside this Python, else `python -m cegppo_jax ...`.
    """
    found = shutil.which("cegppo")
    beside = found is not None and Path(found).parent == Path(sys.executable).parent
    program = "cegppo" if beside else "python -m cegppo_jax"
    return f"{program} {command} {shlex.join(arguments)}".rstrip()
