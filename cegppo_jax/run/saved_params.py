"""Parameters alone in a folder: a run's reference policy, and those before an update that was left
out.
"""

from __future__ import annotations

from pathlib import Path

import orbax.checkpoint as ocp

from cegppo_jax import distributed
from cegppo_jax.models.decoder import Params
from cegppo_jax.run.checksums import tree_checksums
from cegppo_jax.run.read_back import check_unchanged, failure_is_told
from cegppo_jax.storage.mirror import real_place
from cegppo_jax.storage.writing import writing


def save_params(path: Path, params: Params) -> None:
    """Saves parameters and their checksums in a new folder, which a rename makes appear. Does
    nothing if it exists.
    """
    place = real_place(path)
    if not distributed.of_main(place.exists):
        args = ocp.args.Composite(
            params=ocp.args.StandardSave(params), checks=ocp.args.JsonSave(tree_checksums(params))
        )
        with writing(path), ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            checkpointer.save(place, args=args)


def restore_params(path: Path, layout: Params) -> Params:
    """Folder and tree of ShapeDtypeStructs with shardings -> parameters in that layout.

    Raises:
      ValueError: the folder has other names or shapes than the layout, or
        (DamagedCheckpointError) what is read is not what was saved. Version 0.2 saved no checksums.
    """
    place = real_place(path)
    with failure_is_told(place):
        if not (place / "params").exists() and not (place / "checks").exists():
            with ocp.StandardCheckpointer() as checkpointer:
                return checkpointer.restore(place, layout)
        args = ocp.args.Composite(
            params=ocp.args.StandardRestore(layout), checks=ocp.args.JsonRestore()
        )
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            restored = checkpointer.restore(place, args=args)
    check_unchanged(place, "parameters", restored.checks, tree_checksums(restored.params))
    return restored.params
