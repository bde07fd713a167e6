"""Updates that are left out are said, counted over steps, and end the run."""

import child_runs
import pytest

from cegppo_jax.finite import NonFiniteError
from cegppo_jax.reporting.metrics import read_metrics
from cegppo_jax.reporting.skipped_updates import SkippedUpdates

NAN = float("nan")


def updates(*skipped):
    return [
        {"update/skipped": int(one), "update/loss": 0.5, "update/grad_norm": NAN if one else 1.0}
        for one in skipped
    ]


def test_they_are_counted_over_steps_and_said():
    counted = SkippedUpdates(4)
    assert counted.message(1, updates(False, False)) is None
    line = counted.message(2, updates(False, True))
    assert line.startswith("step 2: 1 of 2 updates left out")
    assert "the first is update 2: loss 0.5, grad_norm nan" in line
    counted.check(False, 1)
    assert counted.in_a_row == 1
    counted.message(3, updates(True, True))
    assert counted.in_a_row == 3
    counted.check(False, 1)
    counted.message(4, [])  # a step in which no group trained
    counted.message(5, updates(True, False))
    assert counted.in_a_row == 0
    counted.check(True, 1)


def test_as_many_in_a_row_as_the_limit_end_the_run():
    counted = SkippedUpdates(3)
    counted.message(1, updates(False, True))
    counted.message(2, updates(True, True))
    with pytest.raises(NonFiniteError, match=r"last 3 updates .*skipped = 3.* of step 0, is the"):
        counted.check(False, 0)


@pytest.mark.parametrize(("last_step", "ends"), [((True, True), True), ((True, False), False)])
def test_a_run_whose_last_step_has_no_update_does_not_end_well(last_step, ends):
    counted = SkippedUpdates(8)
    counted.message(6, updates(*last_step))
    if ends:
        with pytest.raises(NonFiniteError):
            counted.check(True, 4)
    counted.check(False, 4)


@pytest.mark.slow
def test_a_run_that_diverges_stops_and_keeps_the_checkpoint_before(compile_cache, tmp_path):
    workdir = tmp_path / "run"
    flags = ("--config.optimizer.learning_rate=1e30", "--config.warm_start.steps=0")
    flags += ("--config.checkpoint.stop_after_skipped=3", "--config.checkpoint.every_steps=1")
    errors = child_runs.fail(workdir, *flags, cache=compile_cache)
    assert "not finite" in errors.splitlines()[-1]
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["0"]
    line = errors.splitlines()[-1]
    assert "error: " in line
    assert f"replay {workdir}/not_finite" in line
    replayed = child_runs.command("replay", f"{workdir}/not_finite", cache=compile_cache)
    assert "not finite first: " in replayed
    assert "those of the run, to the last bit" in replayed
    assert sum(line.get("update/skipped", 0) for line in read_metrics(workdir)) >= 1
