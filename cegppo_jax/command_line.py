"""The flags that every command on a run takes."""

from __future__ import annotations

from absl import flags
from ml_collections import config_flags


def define_flags() -> None:
    """Defines --config and --workdir; call it under `if __name__ == "__main__"` alone, a flag can
    exist only once.
    """
    config_flags.DEFINE_config_file(
        "config",
        None,
        "recipe, configs/NAME.py[:variant]; override with --config.loss.beta_low=0.75",
    )
    flags.DEFINE_string("workdir", None, "directory of the run; an interrupted run is resumed")
    flags.mark_flags_as_required(["config", "workdir"])
