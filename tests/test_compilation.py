"""Where compiled programs are kept, in processes of their own: jax reads this once."""

import os
import subprocess
import sys

import child_runs

SCRIPT = """
import jax
from cegppo_jax import compilation

hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
compilation.LEAST_SECONDS = 0.0
print(compilation.keep_compiled_programs())
jax.jit(lambda x: x * 3 + 1)(jax.numpy.arange(5.0)).block_until_ready()
print(sum(event.endswith("cache_hits") for event in hits))
"""


def start(home, **variables):
    """-> (the line, programs taken from disk) of a process whose user has the cache folder `home`;
    a variable that is None is not set.
    """
    environment = child_runs.environment(None) | {"XDG_CACHE_HOME": str(home)} | variables
    environment = {name: value for name, value in environment.items() if value is not None}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    line, hits = done.stdout.splitlines()
    return line, int(hits)


def test_a_second_start_takes_its_programs_from_the_users_cache(tmp_path):
    line, hits = start(tmp_path, JAX_ENABLE_COMPILATION_CACHE=None)
    folder = tmp_path / "cegppo_jax" / "compiled"
    assert str(folder) in line
    assert hits == 0
    assert list(folder.glob("jit_*"))
    _, hits = start(tmp_path, JAX_ENABLE_COMPILATION_CACHE=None)
    assert hits > 0


def test_the_environment_names_another_folder_or_none(tmp_path):
    home, named = tmp_path / "home", tmp_path / "named"
    line, _ = start(home, JAX_ENABLE_COMPILATION_CACHE=None, JAX_COMPILATION_CACHE_DIR=str(named))
    assert str(named) in line
    assert list(named.glob("jit_*"))
    line, hits = start(home)  # as tests without a folder do: turned off
    assert "JAX_ENABLE_COMPILATION_CACHE" in line
    assert hits == 0
    assert not home.exists()


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    home = tmp_path / "home"
    home.touch()
    line, hits = start(home, JAX_ENABLE_COMPILATION_CACHE=None)
    assert "not kept" in line
    assert str(home) in line
    assert hits == 0


def test_tests_keep_nothing_in_the_home_of_who_runs_them():
    """In this process by conftest.py, in children by child_runs.py."""
    assert os.environ["JAX_COMPILATION_CACHE_DIR"]
    assert child_runs.environment(None)["JAX_ENABLE_COMPILATION_CACHE"] == "false"
