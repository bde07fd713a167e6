"""Saves TrainState and stream position, and restores them (Orbax, asynchronous, atomic).

A checkpoint has three items: `state`, the TrainState; `position`, the scalars and texts of the
RunPosition as JSON, with checksums of all that the checkpoint holds; `arrays`, its arrays.

Formats: 2 (`checks` in the position) is written. 1 (version 0.2, without them) is read, unchecked.
A later one is refused.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from cegppo_jax import distributed
from cegppo_jax.learner.train_state import TrainState
from cegppo_jax.models.decoder import Params
from cegppo_jax.run.checksums import array_checksums, json_digest, tree_checksums
from cegppo_jax.run.position import RunPosition
from cegppo_jax.run.read_back import (
    DamagedCheckpointError,
    UnreadableCheckpointError,
    check_unchanged,
    failure_is_told,
)
from cegppo_jax.run.retention import NO_MILESTONES, Milestones, check_scores
from cegppo_jax.storage import strict_json
from cegppo_jax.storage.mirror import DAMAGED, move_folder, real_place
from cegppo_jax.storage.writing import leave_out_echoes, writing

FORMAT = 2
NO_VALUES: Mapping[str, Any] = MappingProxyType({})
LINES = "lines"  # of logs, in the position's JSON
POSITION_FILE = "position/metadata"  # Orbax's name of it


class Checkpointer:
    """The checkpoints of one run, in a directory for them alone: the newest `keep` (None: all),
    and `milestones`.
    """

    def __init__(self, directory: Path, keep: int | None, milestones: Milestones = NO_MILESTONES):
        """Opens the directory. Raises DamagedCheckpointError if it has a damaged score."""
        self._directory = place = real_place(directory)
        self._milestones = milestones
        if milestones.best:
            try:
                check_scores(place, saved_steps(directory))
            except ValueError as error:
                raise DamagedCheckpointError(str(error)) from error
        options = milestones.options(keep)
        leave_out_echoes()
        with writing(directory):
            self._manager = ocp.CheckpointManager(
                place, options=options, item_names=("state", "position", "arrays")
            )

    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint, or None. Interrupted saves do not count."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """Step of the best checkpoint by the metric of the milestones; None: none has a score."""
        return self._manager.best_step() if self._milestones.best else None

    def save(
        self,
        state: TrainState,
        position: RunPosition,
        values: Mapping[str, Any] = NO_VALUES,
        lines: Mapping[str, int] = NO_VALUES,
    ) -> None:
        """Copies the state off the device, then writes in the background. A rename makes the
        finished directory appear.

        Args:
          values: metrics of the step; without them it is never the best.
          lines: how many the logs have, by the file's name.
        """
        scalars, arrays = position.to_saved()
        described = {name: [str(a.dtype), list(a.shape)] for name, a in arrays.items()}
        items = {
            "state": ocp.args.StandardSave(state),
        }
        scalars |= {"arrays": described, LINES: dict(lines)}
        checks = {"state": tree_checksums(state), "arrays": array_checksums(arrays)}
        checks |= {"format": FORMAT, "position": json_digest(scalars)}
        items["position"] = ocp.args.JsonSave(scalars | {"checks": checks})
        # Orbax saves no empty arrays, and no item without arrays
        if filled := {name: array for name, array in arrays.items() if array.size}:
            items["arrays"] = ocp.args.StandardSave(filled)
        with writing(self._directory):  # this one, or the one before, in the background
            self._manager.save(
                position.step,
                args=ocp.args.Composite(**items),
                metrics=self._milestones.score(position.step, values),
            )

    def restore(
        self, layout: TrainState, step: int | None = None
    ) -> tuple[TrainState, RunPosition] | None:
        """Restores the checkpoint of a step (None: the newest) in a layout, given as a tree of
        ShapeDtypeStructs with shardings. Returns None if there is no checkpoint.

        Raises:
          ValueError: the saved tree has other names or shapes than the layout, or
            (UnreadableCheckpointError) the position is not one that this version writes, or
            (DamagedCheckpointError) what is read is not what was saved.
        """
        step = self.latest_step() if step is None else step
        if step is None:
            return None
        position, checks = self._restore_position(step)
        with failure_is_told(self._directory / str(step)):
            restored = self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(layout))
            )
        self._check(step, checks, "state", tree_checksums(restored.state))
        steps = step, position.step, int(restored.state.step)
        if len(set(steps)) > 1:
            raise DamagedCheckpointError(
                f"{self._directory / str(step)} is damaged: its folder is of step {steps[0]}, its "
                f"position of {steps[1]} and its state of {steps[2]}"
            )
        return restored.state, position

    def _read_position(self, step: int) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Returns the JSON of a position, and its checks (None: format 1 has none)."""
        with failure_is_told(self._directory / str(step)):
            args = ocp.args.Composite(position=ocp.args.JsonRestore())
            scalars = dict(self._manager.restore(step, args=args).position)
            checks = scalars.pop("checks", None)
        if checks is None:
            return scalars, None
        place = self._directory / str(step)
        if checks.get("format") != FORMAT:
            raise UnreadableCheckpointError(
                f"{place} has the format {checks.get('format')}, and this version reads {FORMAT} "
                "and 1: continue with the version that wrote it (versions.json)"
            )
        if checks.get("position") != json_digest(scalars):
            raise DamagedCheckpointError(f"{place} is damaged: its position has changed")
        return scalars, checks

    def _check(
        self, step: int, checks: dict[str, Any] | None, item: str, found: dict[str, Any]
    ) -> None:
        if checks is not None:
            check_unchanged(self._directory / str(step), item, checks[item], found)

    def _restore_position(self, step: int) -> tuple[RunPosition, dict[str, Any] | None]:
        scalars, checks = self._read_position(step)
        with failure_is_told(self._directory / str(step)):
            described, _ = scalars.pop("arrays", {}), scalars.pop(LINES, {})
            arrays = {name: np.empty(shape, dtype) for name, (dtype, shape) in described.items()}
            if filled := {name: array for name, array in arrays.items() if array.size}:
                args = ocp.args.Composite(arrays=ocp.args.StandardRestore(filled))
                arrays |= self._manager.restore(step, args=args).arrays
        self._check(step, checks, "arrays", array_checksums(arrays))
        try:
            return RunPosition.from_saved(scalars, arrays), checks
        except ValueError as error:
            raise UnreadableCheckpointError(
                f"{self._directory / str(step)} cannot be read by this version: {error}. Continue "
                "with the version that wrote it (versions.json), or use another directory"
            ) from error

    def steps(self) -> list[int]:
        """Returns the steps of the complete checkpoints in ascending order."""
        return sorted(self._manager.all_steps())

    def restore_params(self, layout: Params, step: int) -> Params:
        """Tree of ShapeDtypeStructs with shardings -> the parameters of that step in that layout;
        the rest of its state is not read. The host holds, beside them, twice the largest leaf.
        Raises as `restore`.
        """
        return self._restore_part(layout, step, self._read_position(step)[1])

    def restore_leaves(self, layout: Params, step: int) -> Iterator[tuple[str, jax.Array]]:
        """Yields the same parameters one by one: (path, leaf) in the tree's order; leaves of
        layers are [L, ...]. Raises as `restore`.
        """
        _, checks = self._read_position(step)
        for path, leaf in flatten_dict(layout).items():
            part = unflatten_dict({path: leaf})
            # Nothing here keeps the leaf, so that the caller can let it go.
            yield "/".join(path), jax.tree.leaves(self._restore_part(part, step, checks))[0]

    def _restore_part(self, layout: Params, step: int, checks: dict[str, Any] | None) -> Params:
        """Restores the parameters in a part of the tree."""
        largest = max(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(layout))
        # Orbax reads as many leaves at once as this many (decimal) gigabytes hold.
        handler = ocp.PyTreeCheckpointHandler(restore_concurrent_gb=(largest + 1) / 1e9)
        with failure_is_told(self._directory / str(step)), ocp.Checkpointer(handler) as reader:
            restored = reader.restore(
                self._directory / str(step) / "state",
                args=ocp.args.PyTreeRestore(
                    item={"params": layout},
                    restore_args=ocp.checkpoint_utils.construct_restore_args({"params": layout}),
                    partial_restore=True,
                ),
            )
        self._check(step, checks, "state", tree_checksums({"params": restored["params"]}))
        return restored["params"]

    def set_aside(self, step: int) -> epath.Path:
        """Moves a damaged checkpoint out of the way of those to come, and returns where to."""
        aside = self._directory.with_name(DAMAGED + self._directory.name)
        if distributed.is_main():
            move_folder(self._directory / str(step), aside / f"{step}-{time.time_ns()}")
        distributed.barrier("set aside")
        self._manager.reload()
        return aside

    def wait(self) -> None:
        """Waits until everything that was saved is on disk. Raises CannotWriteError."""
        with writing(self._directory):
            self._manager.wait_until_finished()

    def keep_only(self, steps: Collection[int | None]) -> None:
        """Deletes the checkpoints of all other steps."""
        for step in set(self._manager.all_steps()) - set(steps):
            self._manager.delete(step)

    def close(self) -> None:
        """Waits for the save in progress and closes. Raises CannotWriteError."""
        try:
            self.wait()
        finally:
            with writing(self._directory):
                self._manager.close()

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def saved_steps(directory: Path) -> list[int]:
    """Returns the steps of the complete checkpoints in a directory, in any order; [] without the
    directory. Nothing is made, and no other host is waited for.
    """
    place = real_place(directory)
    return ocp.utils.checkpoint_steps(place) if place.is_dir() else []


def saved_lines(directory: Path, step: int) -> dict[str, int]:
    """Returns how many lines the logs had when a checkpoint was saved, by the file's name; {}: it
    is damaged, or of an older version. No other host is waited for.
    """
    try:
        saved = strict_json.parse((real_place(directory) / str(step) / POSITION_FILE).read_bytes())
        checks = saved.pop("checks")
        return dict(saved[LINES]) if checks["position"] == json_digest(saved) else {}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def abstract_state(state_shapes: TrainState, shardings: TrainState) -> TrainState:
    """Returns the layout for `restore` to fill, from shapes and shardings."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state_shapes,
        shardings,
    )
