"""The flags of every command that reads them with absl. Here and not in the commands' modules, so
that help needs none of what they import.
"""

from __future__ import annotations

from absl import flags
from ml_collections import config_flags


def define_recipes(values: flags.FlagValues) -> None:
    """It has none."""


def define_run(values: flags.FlagValues) -> None:
    """Of what trains a run."""
    _define_config(values)
    flags.DEFINE_string(
        "workdir",
        None,
        "directory of the run; the same command again resumes it",
        flag_values=values,
    )
    flags.DEFINE_string(
        "profile_steps",
        None,
        "traces these steps into WORKDIR/profile, first:last, as in 3:5; they take longer",
        flag_values=values,
    )
    _define_hosts(values)


def define_check(values: flags.FlagValues) -> None:
    """Of the checks of a start."""
    _define_config(values)
    flags.DEFINE_string(
        "workdir", None, "directory that the run will begin or go on in", flag_values=values
    )


def define_replay(values: flags.FlagValues) -> None:
    """It has none."""


def define_plan(values: flags.FlagValues) -> None:
    """Of a plan."""
    _define_config(values)
    flags.DEFINE_string(
        "topology",
        None,
        "chips and their grid, v4, v5e, v5p, v6e or v7: v5p:2x2x4; with --table several, with "
        "commas between",
        flag_values=values,
    )
    flags.DEFINE_string(
        "lengths",
        "",
        "of completions: lognormal:MEAN:SIGMA, constant:TOKENS, or a run whose mean is taken; "
        "default: lognormal, with a third of the limit as its mean",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "prompt_tokens", None, "of every prompt; default: 256, or the limit", flag_values=values
    )
    flags.DEFINE_float("price", None, "dollars a chip and hour", flag_values=values)
    flags.DEFINE_string("json", None, "the file to write every number to", flag_values=values)
    flags.DEFINE_list(
        "compiled",
        [],
        "files of --json, with commas between: what was compiled for them is not compiled again",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "table",
        False,
        "a table of every training recipe in configs/: hours of compiling",
        flag_values=values,
    )


def define_evaluate(values: flags.FlagValues) -> None:
    """Of an evaluation."""
    flags.DEFINE_string(
        "run",
        None,
        "directory of a run: its model, and its config without --config",
        flag_values=values,
    )
    flags.DEFINE_alias("workdir", "run", flag_values=values)
    flags.DEFINE_integer(
        "step", None, "of the run's checkpoint; default: the newest", flag_values=values
    )
    _define_config(values)
    flags.DEFINE_string(
        "out", None, "folder for the results; default: in the run's directory", flag_values=values
    )
    _define_hosts(values)


def define_report(values: flags.FlagValues) -> None:
    """Of the page of runs."""
    flags.DEFINE_string("out", "report.html", "the file to write", flag_values=values)
    flags.DEFINE_string(
        "title", "", "of the page; default: the names of the arms", flag_values=values
    )
    flags.DEFINE_bool(
        "cdn", False, "load plotly.js from its server instead of embedding it", flag_values=values
    )


def define_compare(values: flags.FlagValues) -> None:
    """Of a comparison."""
    each = "an evaluation's folder, or a run for its newest one"
    flags.DEFINE_string("first", None, f"{each}; the same as FIRST", flag_values=values)
    flags.DEFINE_string("second", None, f"{each}; the same as SECOND", flag_values=values)
    flags.DEFINE_string(
        "out", None, "file for the comparison as JSON; default: none", flag_values=values
    )


def define_export(values: flags.FlagValues) -> None:
    """Of an export."""
    flags.DEFINE_string("run", None, "directory of the run", flag_values=values)
    flags.DEFINE_alias("workdir", "run", flag_values=values)
    flags.DEFINE_string("out", None, "folder to write; it must not exist", flag_values=values)
    flags.DEFINE_string(
        "dtype", "bfloat16", "of the weights: bfloat16, float16 or float32", flag_values=values
    )
    flags.DEFINE_integer("step", None, "of the checkpoint; default: the newest", flag_values=values)
    flags.DEFINE_float("shard_gigabytes", 2.0, "of one file, at most", flag_values=values)
    _define_hosts(values)


def define_verify(values: flags.FlagValues) -> None:
    """Of the trial of a verifier."""
    flags.DEFINE_string(
        "verifier", None, "math, gsm8k, choice, ..., or package.module:function", flag_values=values
    )
    flags.DEFINE_string("gold", None, "the problem's answer", flag_values=values)
    flags.DEFINE_string("text", None, "a completion", flag_values=values)
    flags.DEFINE_string(
        "rows", None, "a .jsonl or .jsonl.gz file of rows; - is standard input", flag_values=values
    )
    flags.DEFINE_string(
        "scope",
        "full",
        "what counts of a completion: full, after_think or boxed_only",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "show", 20, "disagreements that are printed", lower_bound=0, flag_values=values
    )
    flags.DEFINE_bool("json", False, "print one JSON object", flag_values=values)


def define_decontaminate(values: flags.FlagValues) -> None:
    """Of the search for shared problems."""
    flags.DEFINE_string("train", None, "problem set to train on", flag_values=values)
    flags.DEFINE_list(
        "against", None, "problem sets to evaluate on, with commas between", flag_values=values
    )
    flags.DEFINE_string("out", None, "the report, a JSON file", flag_values=values)
    flags.DEFINE_string(
        "write",
        "",
        "the training problems without a match: .jsonl or .jsonl.gz",
        flag_values=values,
    )
    flags.DEFINE_integer("ngram", 9, "words in a row that make a match", flag_values=values)
    flags.DEFINE_float(
        "min_share", 0.0, "least share of the evaluation problem's n-grams", flag_values=values
    )
    flags.DEFINE_string(
        "fields",
        "plain",
        "as problems.fields: plain, verl, problem=question&...",
        flag_values=values,
    )


def _define_hosts(values: flags.FlagValues) -> None:
    flags.DEFINE_bool(
        "distributed",
        False,
        "several hosts, which find one another by the variables of a TPU pod, Slurm, Open MPI or "
        "Kubernetes; the same command runs on each",
        flag_values=values,
    )
    flags.DEFINE_string(
        "coordinator_address",
        None,
        "several hosts elsewhere: HOST:PORT of process 0, the same on each",
        flag_values=values,
    )
    flags.DEFINE_integer("num_processes", None, "how many they are", flag_values=values)
    flags.DEFINE_integer("process_id", None, "which of them this is, from 0", flag_values=values)
    flags.DEFINE_integer(
        "start_timeout_seconds",
        300,
        "within which all hosts have to start, or those that have done so stop",
        lower_bound=5,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "heartbeat_timeout_seconds",
        60,
        "after which a host that is not heard of counts as dead, and the others stop",
        lower_bound=5,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "stall_timeout_seconds",
        1800,
        "after which hosts that are alive and get nowhere stop; longer than any compilation",
        lower_bound=10,
        flag_values=values,
    )


def _define_config(values: flags.FlagValues) -> None:
    config_flags.DEFINE_config_file(
        "config",
        None,
        "a recipe, configs/NAME.py[:variant], or the config.json of a run; "
        "--config.loss.beta_low=0.75 changes a setting of it",
        flag_values=values,
    )
