"""The folder of an evaluation: its name, and whether an evaluation may start or go on in it."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cegppo_jax import distributed
from cegppo_jax.data.problems import ProblemSettings
from cegppo_jax.evaluation.files import COMPLETIONS, read_attempts
from cegppo_jax.read_settings import read_setting
from cegppo_jax.run import command_line
from cegppo_jax.run.directory import check_same, is_occupied, record_versions
from cegppo_jax.run.one_writer import writer_lock
from cegppo_jax.saved_config import (
    ABSENT,
    VERSIONS_FILE_NAME,
    differences,
    flat,
    load_config,
    read_versions,
)
from cegppo_jax.storage import strict_json
from cegppo_jax.types import Prompt

# What may differ between an evaluation and its resumption: where and how fast it runs, not what is
# drawn.
EVALUATION_RESUMABLE = (
    "mesh.",
    "sampler.slots",
    "sampler.prefill_prompts",
    "sampler.chunk_steps",
    "sampler.cache_read_ladder",
    "sampler.slot_ladder",
    "sampler.pages",
)


def evaluation_digest(described: dict[str, Any], defaults: dict[str, Any]) -> str:
    """What an evaluation's result depends on, and defaults of the settings -> 8 hexadecimal digits
    of what is no default: a setting that a later version adds does not change them.
    """
    differing = {
        name: value
        for name, _, value in differences(defaults, described)
        if value != ABSENT and not name.startswith(EVALUATION_RESUMABLE)
    }
    text = strict_json.dumps(differing, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def prompts_digest(prompts: Sequence[Prompt]) -> str:
    """Prompts -> 16 hexadecimal digits of what is asked and what the answers are: a problem file
    that has changed since, or a tokenizer, must not go on with the completions that are there.
    """
    asked = [(one.problem.id, one.problem.answer, one.tokens) for one in prompts]
    return hashlib.blake2b(json.dumps(asked).encode(), digest_size=8).hexdigest()


def check_evaluation_folder(out: Path, described: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Says which settings take their defaults, where a version without them began the evaluation.

    Raises:
      ValueError: the folder holds anything but this evaluation, begun or finished, or its
        completions or versions.json cannot be read.
    """
    if (out / "config.json").exists():
        saved = load_config(out)
        for line in check_same(saved, described, defaults, out, EVALUATION_RESUMABLE):
            print(line, flush=True)
        read_versions(out / VERSIONS_FILE_NAME)
        if (out / COMPLETIONS).exists():
            read_attempts(out / COMPLETIONS)
    elif is_occupied(out):
        raise ValueError(f"{out} is not empty and holds no evaluation: choose another --out")


def check_tokenizer_of_run(settings: ProblemSettings, workdir: Path) -> None:
    """Raises ValueError when the config asks for a tokenizer or options that are not the run's.
    A run is evaluated with its own, which would otherwise win silently.
    """
    saved = flat(command_line.default_settings()) | flat(load_config(workdir))
    for name in ("tokenizer", "template_options", "ending_tokens"):
        asked, own = getattr(settings, name), saved[f"problems.{name}"]
        if asked and asked != read_setting(ProblemSettings, name, own):
            raise ValueError(
                f"problems.{name} = {asked!r}, and a run is evaluated with its own tokenizer "
                f"and ends ({own!r}): leave it out, or export the run and evaluate the export"
            )


@contextlib.contextmanager
def writing_evaluation(
    out: Path, described: dict[str, Any], built: dict[str, Any]
) -> Iterator[None]:
    """Within this context, no other process writes to an evaluation's folder, which says what it
    holds and what this start runs on. Raises InUseError.
    """
    if not distributed.is_main():
        yield
        return
    with writer_lock(out) as lock:
        lock.hold()
        strict_json.write_json(out / "config.json", described)
        record_versions(out / VERSIONS_FILE_NAME, described, built)
        yield
