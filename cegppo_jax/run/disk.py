"""The room on disk that a run's checkpoints need, stated and checked before it starts."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

import jax
from jax.sharding import Mesh

from cegppo_jax.learner.train_state import init_state
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.run.checkpoint import saved_steps
from cegppo_jax.run.memory import GB, float32_bytes
from cegppo_jax.run.settings import RunSettings
from cegppo_jax.storage.mirror import CHECKPOINTS, mirror_of, shown_place
from cegppo_jax.storage.writing import existing

GOOD_KEPT = 3  # checkpoints that a rollback may return to, at most


def checkpoint_bytes(settings: RunSettings, model: ModelConfig, mesh: Mesh) -> int:
    """Returns the bytes of one checkpoint's state, before Orbax compresses it."""
    make = partial(init_state, mesh, model, settings.optimizer)
    leaves = jax.tree.leaves(jax.eval_shape(make, jax.random.key(0)))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def check_disk(
    workdir: Path, settings: RunSettings, model: ModelConfig, mesh: Mesh, steps: int
) -> str:
    """Returns what the checkpoints of a run of so many steps will still need, and what is free, in
    words.

    Raises:
      ValueError: less is free.
      PermissionError: nothing can be written there.
    """
    if mirror_of(workdir):
        return f"checkpoints go to {shown_place(workdir)}"
    place = workdir if workdir.is_dir() else existing(workdir)
    if not os.access(place, os.W_OK):
        raise PermissionError(f"{place} cannot be written to: choose another --workdir")
    one, kept = checkpoint_bytes(settings, model, mesh), settings.checkpoint
    most = kept.most_at_once(steps)
    there = len(saved_steps(workdir / CHECKPOINTS))
    need = max(1, most + 1 - there) * one  # one more is written before the oldest goes
    also = ", keep_every_steps" * bool(kept.keep_every_steps) + ", keep_best" * bool(kept.keep_best)
    parts = [f"checkpoint.keep{also} + 1 = {most + 1} of {one / GB:.3g} GB"]
    if there:
        parts.append(f"{there} are there")
    if settings.steering.guard.rollback:
        need += GOOD_KEPT * one
        parts.append(f"{GOOD_KEPT} for rollbacks")
    if settings.loss.kl_place != "none" and not (workdir / "reference").exists():
        need += float32_bytes(model)
        parts.append("the reference policy")
    free = shutil.disk_usage(place).free
    words = f"about {need / GB:.3g} GB ({', '.join(parts)})"
    if need > free:
        raise ValueError(
            f"the checkpoints in {workdir} need {words}, and {free / GB:.3g} GB are free on disk: "
            f"make room, keep fewer (checkpoint.keep{also}), or choose another --workdir"
        )
    return f"{words}; {free / GB:.3g} GB are free"
