"""Computes an update again whose gradient was not finite, and says what is not finite first.

    cegppo replay runs/quickstart/not_finite

A run that ends because its updates are left out saves the first of them. Here it is computed with
the same program: its numbers come out to the last bit, on the same kind and number of devices.
The config's model and problem files are read, as `train` reads them. The exit code is 0 if the
numbers are the same, else 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from absl import logging

from cegppo_jax.activity import Activity
from cegppo_jax.console.start import ends_on_bad_input, start_command
from cegppo_jax.reporting.step_metrics import values_of
from cegppo_jax.run.bad_batch import PARAMS, changed_values, read_bad_update, state_before
from cegppo_jax.run.command_line import base_config
from cegppo_jax.run.config_of_run import RUN_CONFIG, config_of_run
from cegppo_jax.run.door import RunParts
from cegppo_jax.run.parts import policy_diagnosis
from cegppo_jax.run.saved_params import restore_params
from cegppo_jax.run.settings import read_settings
from cegppo_jax.storage.mirror import opened_folder


def replay(folder: Path) -> tuple[list[str], list[str]]:
    """Computes the update in a folder again. Returns the lines that say what was found, and one for
    each number that differs from the run's.

    Raises:
      ValueError, OSError: there is no update, or it, the config or a file of it is damaged.
    """
    bad = read_bad_update(folder)
    parts = RunParts(read_settings(config_of_run(folder / RUN_CONFIG, base_config())), Activity())
    learner, batch, old = parts.learner, bad.minibatch.batch, bad.minibatch.old
    with jax.set_mesh(parts.mesh):
        params = restore_params(folder / PARAMS, learner.state_layout().params)
        diagnose = policy_diagnosis(parts.settings, parts.mesh, parts.model)
        first = diagnose(params, bad.updates, batch, old, bad.knobs, bad.is_old)
        state = state_before(learner.fresh_state(params), bad)
        _, reductions, _ = learner.update(state, batch, old, bad.knobs, np.bool_(bad.is_old))
        values = values_of(jax.device_get(reductions))
    lines = [
        f"update {bad.update} of step {bad.step}: loss {values['update/loss']:g}, grad_norm "
        f"{values['update/grad_norm']:g}",
        f"not finite first: {first}",
    ]
    return lines, changed_values(bad, values)


def main(argv: Sequence[str]) -> None:
    """Prints what is not finite, and whether the numbers are those of the run."""
    logging.set_verbosity(logging.WARNING)
    with ends_on_bad_input():
        if len(argv) != 2:
            raise ValueError("give the folder of an update: RUN/not_finite")
        with opened_folder("FOLDER", argv[1]) as folder:
            lines, different = replay(folder)
    print(*lines, sep="\n")
    if different:
        print(*different, sep="\n")
        raise SystemExit(f"error: {len(different)} numbers differ from those of the run")
    print("all its numbers are those of the run, to the last bit")


if __name__ == "__main__":
    start_command("replay", main)
