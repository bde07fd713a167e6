"""The writers beside metrics.jsonl: TensorBoard, Weights & Biases, and those of users."""

import json
import time

import pytest
from own_writers import Collects

from cegppo_jax.reporting.metrics import MetricsWriter, read_metrics
from cegppo_jax.reporting.writers import Phase, resolve_writer


def tensorboard_events(directory):
    """Event files of one directory -> [(step, tag, value)], a purge being (step, None, None)."""
    from tensorboardX.proto import event_pb2

    events = []
    for path in sorted(directory.iterdir(), key=lambda p: p.stat().st_mtime_ns):
        raw = path.read_bytes()
        while raw:
            length = int.from_bytes(raw[:8], "little")
            event = event_pb2.Event.FromString(raw[12 : 12 + length])
            raw = raw[16 + length :]
            if event.HasField("session_log"):
                events.append((event.step, None, None))
            events += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
    return events


def test_tensorboard_has_the_same_values(tmp_path):
    with MetricsWriter(tmp_path, None, ("tensorboard",)) as writer:
        writer.write("supervised", 3, {"supervised/loss": 0.5})
        writer.write("rl", 0, {"reward/mean": 0.25, "policy/entropy": float("nan")})
        writer.write("rl", 1, {"reward/mean": 0.75})
    board = tmp_path / "tensorboard"
    assert tensorboard_events(board / "supervised") == [
        (0, None, None),
        (3, "supervised/loss", 0.5),
    ]
    rl = [(0, None, None), (0, "reward/mean", 0.25), (1, "reward/mean", 0.75)]
    assert tensorboard_events(board / "rl") == rl


def test_tensorboard_purges_what_the_resume_cuts(tmp_path):
    with MetricsWriter(tmp_path, ("rl", 2), ("tensorboard",)) as writer:
        writer.write("rl", 3, {"reward/mean": 0.3})
    events = tensorboard_events(tmp_path / "tensorboard" / "rl")
    assert events == [(3, None, None), (3, "reward/mean", pytest.approx(0.3))]


def test_a_writer_of_ones_own_gets_every_step_and_is_closed(tmp_path):
    """Phase, step and finite numbers, after the line is in metrics.jsonl."""
    Collects.opened.clear()
    with MetricsWriter(tmp_path, ("rl", 3), ("own_writers:Collects", "tensorboard")) as writer:
        [own] = Collects.opened
        assert (own.workdir, own.resume_after) == (tmp_path, (Phase.RL, 3))
        writer.write("rl", 4, {"reward/mean": 0.25, "policy/entropy": float("nan")})
        assert own.lines_before == [1]
        with pytest.raises(ValueError, match="unknown metric 'reward/men'"):
            writer.write("rl", 5, {"reward/men": 1.0})
        assert own.taken == [(Phase.RL, 4, {"reward/mean": 0.25})]
        assert not own.closed
    assert own.closed
    assert [line["step"] for line in read_metrics(tmp_path)] == [4]
    assert tensorboard_events(tmp_path / "tensorboard" / "rl")[1:] == [(4, "reward/mean", 0.25)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tensorbord", "logging.writers = 'tensorbord'.*did you mean 'tensorboard'"),
        ("no_such_module:Writer", "'no_such_module:Writer'.*'no_such_module' cannot be imported"),
        ("own_writers:Missing", "'own_writers' has no 'Missing'"),
        (
            "own_writers:TakesAFolder",
            r"takes \(folder\) and is called with \(workdir, resume_after",
        ),
        ("own_writers:NotAWriter", r"'own_writers:NotAWriter'.*lacks \['close'\]"),
    ],
)
def test_what_is_no_writer_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        resolve_writer(name)


def test_nothing_is_cut_back_before_every_writer_is_known(tmp_path):
    with MetricsWriter(tmp_path, None, ()) as writer:
        writer.write("rl", 0, {"reward/mean": 1.0})
    with pytest.raises(ValueError, match="tensorbord"):
        MetricsWriter(tmp_path, None, ("tensorbord",))
    assert len(read_metrics(tmp_path)) == 1


def wandb_records(path):
    """A .wandb file of an offline run -> its records: LevelDB's log format behind 7 bytes, in
    blocks of 32 KiB, whose records begin with a checksum (4 bytes), a length (2) and whether a part
    ends the record (1).
    """
    from wandb.proto.wandb_internal_pb2 import Record

    raw, place, whole, records = path.read_bytes(), 7, b"", []
    while place + 7 <= len(raw):
        left = 32_768 - place % 32_768
        if left < 7:
            place += left
            continue
        length, part = int.from_bytes(raw[place + 4 : place + 6], "little"), raw[place + 6]
        place += 7
        whole += raw[place : place + length]
        place += length
        if part in (1, 4):  # whole, or the last part
            records.append(Record.FromString(whole))
            whole = b""
    return records


def wandb_runs(workdir):
    """-> (run record, {name: axis}, [{name: value}]) of each offline run, in order of time."""
    runs = []
    for path in workdir.glob("wandb/offline-run-*/*.wandb"):
        records = wandb_records(path)
        [run] = [record.run for record in records if record.HasField("run")]
        axes = {
            record.metric.name: record.metric.step_metric
            for record in records
            if record.HasField("metric")
        }
        history = [
            {
                "/".join(item.nested_key) or item.key: json.loads(item.value_json)
                for item in record.history.item
            }
            for record in records
            if record.HasField("history")
        ]
        own = [{k: v for k, v in line.items() if not k.startswith("_")} for line in history]
        runs.append((run, axes, own))
    return sorted(runs, key=lambda run: run[0].start_time.ToNanoseconds())


@pytest.fixture
def wandb_offline(monkeypatch, tmp_path):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)


def test_wandb_has_the_same_values_and_a_resumed_run_keeps_its_id(tmp_path, wandb_offline):
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "config.json").write_text(json.dumps({"loss": {"beta_low": 0.5}}))
    with MetricsWriter(workdir, None, ("wandb",)) as writer:
        writer.write("supervised", 0, {"supervised/loss": 2.5, "update/grad_norm": 1.0})
        writer.write("rl", 0, {"reward/mean": 0.25, "policy/entropy": float("nan")})
        writer.write("rl", 1, {"reward/mean": 0.75, "user/margin": 3})
    time.sleep(1)  # W&B names an offline run's folder by the second of its start
    with MetricsWriter(workdir, ("rl", 0), ("wandb",)) as writer:
        writer.write("rl", 1, {"reward/mean": 0.75})
    (first, axes, history), (second, _, repeated) = wandb_runs(workdir)
    assert first.run_id == second.run_id == (workdir / "wandb" / "run_id").read_text()
    assert first.display_name == "run"
    assert {u.key: u.value_json for u in first.config.update}["loss"] == '{"beta_low":0.5}'
    assert history == [
        {"supervised/loss": 2.5, "supervised/update/grad_norm": 1.0, "supervised_step": 0},
        {"reward/mean": 0.25, "rl_step": 0},
        {"reward/mean": 0.75, "user/margin": 3, "rl_step": 1},
    ]
    assert repeated == [{"reward/mean": 0.75, "rl_step": 1}]
    names = ("supervised/loss", "supervised/update/grad_norm", "reward/mean", "user/margin")
    assert [axes[name] for name in names] == ["supervised_step"] * 2 + ["rl_step"] * 2


def test_two_runs_have_two_ids(tmp_path, wandb_offline):
    for name in ("one", "other"):
        with MetricsWriter(tmp_path / name, None, ("wandb",)) as writer:
            writer.write("rl", 0, {"reward/mean": 0.25})
    ids = {(tmp_path / name / "wandb" / "run_id").read_text() for name in ("one", "other")}
    assert len(ids) == 2


def test_wandb_without_a_login_is_refused(monkeypatch, wandb_offline, tmp_path):
    import wandb

    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    wandb.teardown()  # W&B reads its environment once
    with pytest.raises(ValueError, match=r"'wandb' cannot log in .*WANDB_MODE=offline"):
        resolve_writer("wandb")
    wandb.teardown()


def test_wandb_that_is_not_installed_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(ValueError, match=r"logging.writers: 'wandb' needs.*cegppo_jax\[wandb\]"):
        resolve_writer("wandb")
