"""Plans a recipe on TPUs before any is rented: compiles its real programs for a topology, here and
without hardware, and says what they hold, move and take.

    cegppo plan --config=configs/quickstart.py --topology=v5p:2x2x1
    cegppo plan --config=configs/r1_distill_qwen_1p5b.py --topology=v5p:2x2x4 --price=4.2 \\
        --lengths=lognormal:6000:0.6 --json=plan.json
    cegppo plan --table --topology=v5p:2x2x1,v6e:2x4
        a Markdown table of every training recipe in configs/, on each of these topologies: hours
        of compiling. With --json=FILE each plan is kept as it comes, and --compiled=FILE goes on

    cegppo plan --config=configs/r1_distill_qwen_1p5b.py --topology=v5p:2x2x4 --lengths=runs/mine \\
        --compiled=plan.json
        the same again with the lengths of a run, in seconds: nothing is compiled

It needs the compiler libtpu (pip install 'cegppo_jax[tpu]') and no weights; for models that recipes
name, no network either. A program of a large model takes minutes to compile.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from absl import flags

from cegppo_jax.console.recipe_files import RECIPES, recipe_files
from cegppo_jax.console.start import ends_on_bad_input
from cegppo_jax.planning.chips import Topology, open_topology
from cegppo_jax.planning.lengths import Lengths, plan_lengths
from cegppo_jax.planning.recipe_plan import RecipePlan, plan_recipe
from cegppo_jax.planning.saved import SavedPrograms, read_saved
from cegppo_jax.planning.table import hardware_table
from cegppo_jax.planning.words import plan_words
from cegppo_jax.run import command_line
from cegppo_jax.run.settings import RunSettings, read_settings
from cegppo_jax.storage.paths import local_path
from cegppo_jax.storage.strict_json import write_json


def told(line: str) -> None:
    """Prints what is being compiled, on standard error."""
    print(line, file=sys.stderr, flush=True)


def training_recipes() -> list[str]:
    """Returns the names of the recipes in configs/ that train."""
    found, _ = recipe_files(RECIPES)
    return [one.path.stem for one in found if not one.path.stem.endswith("_evaluation")]


def settings_of(name: str) -> RunSettings:
    """Returns the settings of a recipe in configs/."""
    return read_settings(command_line.recipe_config(RECIPES / f"{name}.py", "", ""))


def asked_lengths(settings: RunSettings) -> Lengths:
    """Returns the lengths of the command line, for a recipe."""
    return plan_lengths(flags.FLAGS.lengths, flags.FLAGS.prompt_tokens, settings)


def plan_one(
    name: str, settings: RunSettings, topology: Topology, saved: SavedPrograms
) -> RecipePlan:
    """Plans a recipe with the lengths and the price of the command line."""
    lengths, price = asked_lengths(settings), flags.FLAGS.price
    return plan_recipe(name, settings, topology, lengths, price, told, saved)


def plan_table(
    topologies: Sequence[Topology],
    saved: SavedPrograms,
    keep: Callable[[Sequence[RecipePlan]], None],
) -> str:
    """Plans every training recipe on each topology. Returns the table.

    Args:
      keep: called with all plans so far after each of them: a table takes hours.

    Raises:
      ValueError: lengths of the command line that a recipe cannot have.
    """
    plans, refused = [], []
    recipes = {name: settings_of(name) for name in training_recipes()}
    for name, settings in recipes.items():
        try:
            asked_lengths(settings)
        except ValueError as error:
            raise ValueError(f"{error} ({name})") from error
    for name, settings in recipes.items():
        for topology in topologies:
            told(f"{name} on {topology.name}")
            try:
                plans.append(plan_one(name, settings, topology, saved))
            except ValueError as error:
                refused.append((name, topology.name, str(error)))
                continue
            keep(plans)
    return hardware_table(plans, refused)


def keep_plans(out: Path | None, plans: Sequence[RecipePlan]) -> None:
    """Writes every number of some plans to a file, if one is named."""
    if out is not None:
        write_json(out, [plan.fields() for plan in plans])


def check_price(price: float | None) -> None:
    """Raises ValueError for a price that is negative or not finite."""
    if price is not None and not (math.isfinite(price) and price >= 0):
        raise ValueError(f"--price={price}: give dollars a chip and hour, 0 or more")


def main(argv: Sequence[str]) -> None:
    """Prints the plan of the command line."""
    del argv
    values = flags.FLAGS
    with ends_on_bad_input():
        check_price(values.price)
        if (values.config is None) != values.table:
            raise ValueError("give --config=RECIPE for one plan, or --table for every recipe's")
        names = values.topology.split(",")
        if len(names) > 1 and not values.table:
            raise ValueError(f"--topology={values.topology}: several are for --table")
        out = None if values.json is None else local_path("--json", values.json)
        if out is not None and not out.parent.is_dir():
            raise ValueError(f"--json={out}: there is no folder {out.parent}")
        saved = read_saved(values.compiled)
        settings = None if values.table else read_settings(values.config)
        opened = [open_topology(name) for name in names]
        if settings is None:
            print(plan_table(opened, saved, partial(keep_plans, out)))
            return
        plan = plan_one(shown_name(sys.argv), settings, opened[0], saved)
    print(plan_words(plan))
    if out is not None:
        write_json(out, plan.fields())
    if not plan.fits:
        raise SystemExit(f"error: it does not fit {values.topology}")


def shown_name(arguments: Sequence[str]) -> str:
    """Returns the recipe as it was asked for on the command line."""
    return command_line.last_value(("config",), arguments) or "the recipe"


if __name__ == "__main__":
    command_line.run("plan", main)
