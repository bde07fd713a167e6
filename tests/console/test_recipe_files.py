"""What `cegppo recipes` reads from recipes, and that those of the package say it all."""

import subprocess
import sys

import child_runs
import pytest

from cegppo_jax.console.recipe_files import NO_RECIPES, RECIPES, recipe_files
from cegppo_jax.recipes import described
from cegppo_jax.run.command_line import recipe_config

FOUND, UNREADABLE = recipe_files(RECIPES)
BY_NAME = {one.path.stem: one for one in FOUND}


def test_every_recipe_of_the_package_is_found():
    assert UNREADABLE == []
    assert set(BY_NAME) == {path.stem for path in RECIPES.glob("*.py")} - NO_RECIPES


@pytest.mark.parametrize("recipe", FOUND, ids=lambda one: one.path.stem)
def test_a_recipe_says_what_it_asks_and_needs(recipe):
    assert recipe.question.endswith((".", "?"))
    assert recipe.hardware
    assert recipe.time.startswith(("measured, ", "not run", "run for "))


@pytest.mark.parametrize(
    ("recipe", "variant"),
    [
        pytest.param(one, variant, id=f"{one.path.stem}:{variant}")
        for one in FOUND
        for variant in one.variants
    ],
)
def test_a_variant_that_is_listed_gives_a_config(recipe, variant):
    assert recipe_config(recipe.path, ":", variant).steps > 0


def test_variants_are_listed():
    assert BY_NAME["quickstart"].variants == ("grpo", "gppo")  # a dict
    assert BY_NAME["math_evaluation"].variants[:2] == ("aime24", "aime25")  # a dict elsewhere
    assert BY_NAME["qwen3_8b"].variants[-1] == "grpo_entropy_0p003_official"  # a tuple elsewhere
    assert BY_NAME["gsm8k_evaluation"].variants == ()


OWN = '''"""Does it hold on my task? In two
lines.

Hardware: a laptop,
whatever it is.
Time: not run.
"""

import no_such_module

VARIANTS = ("one", *("two", "three"))


def get_config(variant=""):
    return 3
'''


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "plain.py").write_text("def get_config():\n    pass\n")
    (tmp_path / "helper.py").write_text("VARIANTS = ()\n")
    (tmp_path / "base.py").write_text("def get_config():\n    pass\n")
    (tmp_path / "broken.py").write_text("def get_config(\n")
    return tmp_path


def test_a_folder_of_one_s_own_is_read_without_being_run(folder):
    (mine, plain), unreadable = recipe_files(folder)
    assert (mine.question, mine.variants) == (
        "Does it hold on my task? In two lines.",
        ("one", "two", "three"),
    )
    assert (mine.hardware, mine.time) == ("a laptop, whatever it is.", "not run.")
    assert (plain.question, plain.variants, plain.hardware, plain.time) == ("", (), "", "")
    assert len(unreadable) == 1
    assert "broken.py cannot be read" in unreadable[0]
    assert described(mine, "mine.py").splitlines() == [
        "mine.py",
        "  Does it hold on my task? In two lines.",
        "  variants  :one :two :three",
        "  hardware  a laptop, whatever it is.",
        "  time      not run.",
    ]


def test_a_file_alone_and_nothing_at_all(folder):
    assert [one.path.name for one in recipe_files(folder / "mine.py")[0]] == ["mine.py"]
    with pytest.raises(ValueError, match="nowhere does not exist"):
        recipe_files(folder / "nowhere")


def test_the_command_names_files_as_config_takes_them(folder):
    def printed(*arguments, cwd):
        done = subprocess.run(
            [sys.executable, "-m", "cegppo_jax", "recipes", *arguments],
            cwd=cwd,
            env=child_runs.environment(None) | {"PYTHONPATH": str(child_runs.ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "\nconfigs/quickstart.py\n" in printed(cwd=child_runs.ROOT)
    assert f"\n{RECIPES.resolve()}/quickstart.py\n" in printed(cwd=folder)
    own = printed(".", cwd=folder)
    assert own.startswith("mine.py\n")
    assert own.endswith("--config=mine.py:one\n")
