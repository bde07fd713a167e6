"""--profile_steps: which steps, and a trace that names what they do."""

import child_runs
import pytest

from cegppo_jax.activity import Activity
from cegppo_jax.run.profile import Profiler, read_profiled_steps


@pytest.mark.parametrize(
    ("text", "steps"),
    [(None, []), ("3:5", [3, 4, 5]), ("3", [3]), ("1:1", [1]), ("6:6", [6])],
)
def test_steps_are_read(text, steps):
    assert list(read_profiled_steps(text, 6)) == steps


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "3:5"),
        ("3-5", "3:5"),
        ("a:b", "3:5"),
        ("3:", "3:5"),
        (":5", "3:5"),
        ("-1:2", "3:5"),
        ("1:2:3", "3:5"),
        ("0:2", "from 1"),
        ("5:3", "first comes before"),
        ("3:7", "warm_start.steps = 6"),
        ("9", "warm_start.steps = 6"),
    ],
)
def test_what_is_no_range_of_the_run_s_steps_is_refused(text, words):
    with pytest.raises(ValueError, match=words) as raised:
        read_profiled_steps(text, 6, "warm_start.steps")
    assert f"--profile_steps={text}:" in str(raised.value)


@pytest.mark.parametrize(
    ("steps", "done", "expected"),
    [
        (range(0), 4, None),
        (range(3, 6), 0, None),
        (range(3, 6), 2, None),
        (range(3, 6), 3, "after step 3, so that only steps 4 to 5 of steps 3 to 5"),
        (range(3, 6), 4, "after step 4, so that only step 5 of steps 3 to 5"),
        (range(3, 6), 7, "after step 7, so that nothing of steps 3 to 5"),
        (range(3, 4), 7, "after step 7, so that nothing of step 3 "),
    ],
)
def test_a_run_resumed_beyond_them_says_so(tmp_path, steps, done, expected):
    words = Profiler(steps, tmp_path, Activity()).resumed(done)
    assert words is expected is None or expected in words


def test_a_bad_range_ends_the_command_before_anything_starts(tmp_path):
    errors = child_runs.refused(tmp_path / "run", "--profile_steps=5:9")
    assert errors.startswith("error: --profile_steps=5:9: ")
    assert "steps = 6" in errors
    assert "\n" not in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_commands_say_where_the_trace_is(compile_cache, tmp_path):
    flags = ("--config.steps=3", "--config.warm_start.steps=3", "--profile_steps=2:3")
    for command in ("train", "supervised"):
        workdir = tmp_path / command
        printed = child_runs.finish(workdir, *flags, command=command, cache=compile_cache)
        assert f"xprof --logdir={workdir}/profile" in printed
        [path] = workdir.glob("profile/plugins/profile/*/perfetto_trace.json.gz")
        assert f"open {path}" in printed
    more = ("--config.steps=4", "--config.warm_start.steps=3", "--profile_steps=2:3")
    printed = child_runs.finish(tmp_path / "train", *more, cache=compile_cache)
    assert "after step 3, so that nothing of steps 2 to 3" in printed
    assert "xprof" not in printed
