"""Commands of the package in processes of their own, to be finished or killed; and refused ones,
which need none.
"""

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest
from absl import app
from absl import flags as absl_flags

from cegppo_jax.run import command_line

ROOT = Path(__file__).parent.parent
RECIPE = "tests/tiny_recipe.py"
POLL_SECONDS = 0.001


def environment(cache, devices=1):
    """-> variables of a process on fake devices; `cache` is a folder that keeps compiled programs,
    or None.
    """
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    variables |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    variables["XLA_FLAGS"] = os.environ["XLA_FLAGS"]  # see compiling.py
    if cache is None:
        variables["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # not in the home of who runs the tests
    else:
        variables |= {
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
    return variables


def _options(workdir, recipe, flags):
    return [f"--config={recipe}", *([f"--workdir={workdir}"] if workdir else []), *flags]


def words(name, *arguments):
    """The command line of a command of the package."""
    return [sys.executable, "-m", f"cegppo_jax.{name}", *arguments]


def start(workdir, *flags, command="train", recipe=RECIPE, cache=None, devices=1):
    """Begins `python -m cegppo_jax.COMMAND`, without --workdir if it is None; cache and devices:
    see environment.
    """
    return subprocess.Popen(
        words(command, *_options(workdir, recipe, flags)),
        cwd=ROOT,
        env=environment(cache, devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(workdir, *flags, **options):
    """Runs a command to its end -> what it printed. A failure shows its errors."""
    child = start(workdir, *flags, **options)
    printed, errors = child.communicate()
    assert child.returncode == 0, errors
    return printed


def fail(workdir, *flags, **options):
    """Runs a command that must end by itself with exit code 1 -> what it printed as errors. Most
    refusals need no process: see `refused`.
    """
    child = start(workdir, *flags, **options)
    _, errors = child.communicate()
    assert child.returncode == 1, errors
    return errors


@contextlib.contextmanager
def in_this_process(command, workdir, *flags, recipe=RECIPE):
    """Here `command_line.run(command, main)` does as in a new process, but for absl's
    start, which a process has once.
    """
    with with_arguments(command, *_options(workdir, recipe, flags)):
        yield


@contextlib.contextmanager
def with_arguments(*words):
    """Here `start_command(name, main)` does as in a new process with this command line."""
    interrupts = signal.getsignal(signal.SIGINT)
    try:
        with (
            contextlib.chdir(ROOT),
            mock.patch.object(sys, "argv", list(words)),
            mock.patch.object(absl_flags, "FLAGS", absl_flags.FlagValues()),
            mock.patch.object(app, "run", lambda main, flags_parser: main(flags_parser(sys.argv))),
        ):
            yield
    finally:
        signal.signal(signal.SIGINT, interrupts)


def refused(workdir, *flags, command="train", recipe=RECIPE):
    """Runs a command that must be refused, in this process, which has imported all of it -> the
    line that it prints before it ends with exit code 1.
    """
    main = importlib.import_module(f"cegppo_jax.{command}").main
    with (
        in_this_process(command, workdir, *flags, recipe=recipe),
        pytest.raises(SystemExit) as raised,
    ):
        command_line.run(command, main)
    line = raised.value.code
    assert isinstance(line, str)  # which Python prints, and exits with 1
    return line


def kill_when(happens, workdir, *flags, **options):
    """Starts a command and kills it (SIGKILL) while `happens()` is true.

    The process is stopped first and looked at again, so that a moment that passed in between is
    waited for anew.
    """
    child = start(workdir, *flags, **options)
    try:
        while child.poll() is None:
            if happens():
                child.send_signal(signal.SIGSTOP)
                if happens():
                    break
                child.send_signal(signal.SIGCONT)
            time.sleep(POLL_SECONDS)
    finally:
        child.kill()
        _, errors = child.communicate()
    assert child.returncode == -signal.SIGKILL, f"ended before the moment to kill it: {errors}"


def stopped(number, happens, workdir, *flags, **options):
    """Starts a command and sends it a signal once `happens()` is true -> its exit code, and what it
    printed as errors.
    """
    child = start(workdir, *flags, **options)
    try:
        while child.poll() is None and not happens():
            time.sleep(POLL_SECONDS)
        child.send_signal(number)
        _, errors = child.communicate(timeout=120)
    finally:
        child.kill()
    return child.returncode, errors


def command(name, *flags, cache=None):
    """Runs a command without a recipe to its end -> what it printed; cache: see environment."""
    done = subprocess.run(
        words(name, *flags),
        cwd=ROOT,
        env=environment(cache),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
