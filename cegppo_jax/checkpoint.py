"""TrainState and stream position -> disk and back (Orbax, asynchronous, atomic)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import TracebackType

import jax
import orbax.checkpoint as ocp

from cegppo_jax.update import TrainState


@dataclasses.dataclass(frozen=True)
class CheckpointSettings:
    """When to save and what to keep."""

    every_steps: int  # the last step is always saved
    keep: int  # newest checkpoints kept

    def __post_init__(self) -> None:
        if self.every_steps < 1 or self.keep < 1:
            raise ValueError(
                f"checkpoint.every_steps = {self.every_steps}, keep = {self.keep}: both at least 1"
            )


@dataclasses.dataclass(frozen=True)
class Position:
    """Where the run stands in its inputs. Keys need no place: they are functions of the step."""

    step: int  # rollout steps finished
    next_prompt: int  # position in the prompt stream


class Checkpointer:
    """The checkpoints of one run, in `workdir`/checkpoints."""

    def __init__(self, workdir: Path, settings: CheckpointSettings):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=settings.keep, enable_async_checkpointing=True
        )
        directory = (workdir / "checkpoints").absolute()
        self._manager = ocp.CheckpointManager(
            directory, options=options, item_names=("state", "position")
        )

    def latest_step(self) -> int | None:
        """-> newest complete checkpoint. A save that was killed half-way is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState, position: Position) -> None:
        """Copies the state off the device, then writes in the background; the directory appears by
        a rename.
        """
        self._manager.save(
            position.step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                position=ocp.args.JsonSave(dataclasses.asdict(position)),
            ),
        )

    def restore(self, layout: TrainState) -> tuple[TrainState, Position] | None:
        """Tree of ShapeDtypeStructs with shardings -> newest state in that layout; None without a
        checkpoint.

        Raises:
          ValueError: the saved tree has other names or shapes than the layout.
        """
        step = self.latest_step()
        if step is None:
            return None
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(layout), position=ocp.args.JsonRestore()
            ),
        )
        return restored.state, Position(**restored.position)

    def close(self) -> None:
        """Waits for the save in progress."""
        self._manager.wait_until_finished()
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


def abstract_state(state_shapes: TrainState, shardings: TrainState) -> TrainState:
    """Shapes and shardings -> the layout that `restore` fills."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state_shapes,
        shardings,
    )
