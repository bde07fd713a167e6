"""Lists recipes: what each asks, its variants, the hardware it needs and the time it takes.

    cegppo recipes
        those of the package
    cegppo recipes my_configs
        those of your own folder: every file there with a function get_config()

Nothing is run: names and facts come from the files' text (cegppo_jax/console/recipe_files.py).
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path

from cegppo_jax.console.help import PAGE_WIDTH, print_page
from cegppo_jax.console.recipe_files import RECIPES, RecipeFile, recipe_files
from cegppo_jax.console.start import ends_on_bad_input, start_command
from cegppo_jax.storage.paths import local_path

INDENT = 12


def described(recipe: RecipeFile, name: str) -> str:
    """Describes a recipe in a few lines, under the name that --config takes."""
    variants = " ".join(f":{variant}" for variant in recipe.variants)
    rows = {"variants": variants, "hardware": recipe.hardware, "time": recipe.time}
    lines = [
        name,
        *textwrap.wrap(recipe.question, PAGE_WIDTH, initial_indent="  ", subsequent_indent="  "),
    ]
    for label, text in rows.items():
        lines += textwrap.wrap(
            text,
            PAGE_WIDTH,
            initial_indent=f"  {label}".ljust(INDENT),
            subsequent_indent=" " * INDENT,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def shortest(path: Path) -> str:
    """Returns a path from the present folder if it lies in it, else the whole path."""
    relative = os.path.relpath(path)
    return str(path.resolve()) if relative.startswith(os.pardir) else relative


def main(argv: Sequence[str]) -> None:
    """Prints the recipes of a folder."""
    with ends_on_bad_input():
        folder = local_path("FOLDER", argv[1]) if argv[1:] else RECIPES
        found, unreadable = recipe_files(folder)
        if not found and not unreadable:
            raise ValueError(f"{folder} holds no recipe: a file with a function get_config()")
    parts = [*(described(one, shortest(one.path)) for one in found), *unreadable]
    if found:
        first = next((one for one in found if one.variants), found[0])
        variant = f":{first.variants[0]}" if first.variants else ""
        parts.append(f"A recipe is named so: --config={shortest(first.path)}{variant}")
    print_page("\n\n".join(parts))


if __name__ == "__main__":
    start_command("recipes", main)
