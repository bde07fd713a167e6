"""A run's directory: claimed for one config, never taken over by another, described."""

import json
import math
import os
import subprocess
from types import SimpleNamespace

import child_runs
import pytest
import tiny_recipe

from cegppo_jax.data.tokenizer import load_tokenizer
from cegppo_jax.reporting.metrics import Phase, read_metrics
from cegppo_jax.run import directory as run_directory
from cegppo_jax.run import lifecycle as run_state
from cegppo_jax.run.checkpoint import Checkpointer
from cegppo_jax.run.nothing_lost import MARK
from cegppo_jax.run.one_writer import LOCK_FILE_NAME
from cegppo_jax.saved_config import differences, load_config

CONFIG = {
    "seed": 0,
    "steps": 10,
    "mesh": {"data": -1},
    "loss": {"beta_low": 0.5, "beta_high": 1.0},
    "sampler": {"cache_read_ladder": (7, 15)},
    "evaluation": {"every_steps": 5, "problems": 8},
    "checkpoint": {"every_steps": 5},
    "logging": {"samples_groups": 1},
}


def changed(**sections):
    """CONFIG with some values of some sections replaced."""
    merged = {name: CONFIG[name] | values for name, values in sections.items()}
    return CONFIG | merged


def snapshot(folder):
    """Everything below a folder: contents, and the times of the last change, folders included."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in [folder, *folder.rglob("*")]
    }


def test_the_folder_of_a_model_is_no_run(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    with pytest.raises(ValueError, match=r"holds no run \(its config.json has no steps\)"):
        run_directory.claim(tmp_path, CONFIG, CONFIG)


def test_claim_writes_the_resolved_config_and_the_versions(tmp_path):
    run_directory.claim(tmp_path / "new" / "run", CONFIG, CONFIG)
    workdir = tmp_path / "new" / "run"
    assert {path.name for path in workdir.iterdir()} == {"config.json", "versions.json"}
    saved = load_config(workdir)
    assert saved == CONFIG | {"sampler": {"cache_read_ladder": [7, 15]}}
    [versions] = json.loads((workdir / "versions.json").read_text())
    assert versions["packages"].keys() == set(run_directory.PACKAGES)
    assert versions["devices"] == ["cpu: cpu"] * 8


def test_the_same_config_claims_again_and_a_resumable_difference_is_taken_over(tmp_path):
    run_directory.claim(tmp_path, CONFIG, CONFIG)
    run_directory.claim(tmp_path, CONFIG, CONFIG)
    longer = changed(
        mesh={"data": 8},
        evaluation={"every_steps": 1},
        checkpoint={"every_steps": 1},
        logging={"samples_groups": 2},
    ) | {"steps": 20}
    run_directory.claim(tmp_path, longer, CONFIG)
    assert load_config(tmp_path)["steps"] == 20
    assert list(differences(load_config(tmp_path), longer)) == []


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (changed(loss={"beta_low": 0.75}), "loss.beta_low: the run has 0.5, this command 0.75"),
        (CONFIG | {"seed": 1}, "seed: the run has 0, this command 1"),
        (
            changed(sampler={"cache_read_ladder": (15,)}),
            "sampler.cache_read_ladder: the run has [7, 15], this command (15,)",
        ),
        (
            changed(evaluation={"problems": 9}),
            "evaluation.problems: the run has 8, this command 9",
        ),
        (CONFIG | {"added": 3}, "added: the run has 'nothing', this command 3"),
        (
            {k: v for k, v in CONFIG.items() if k != "seed"},
            "seed: the run has 0, and this version has no such setting",
        ),
    ],
)
def test_another_config_is_refused_by_its_differences_and_nothing_changes(
    other, difference, tmp_path
):
    run_directory.claim(tmp_path, CONFIG, CONFIG)
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match="another config") as raised:
        run_directory.claim(tmp_path, other, CONFIG)
    assert f"\n  {difference}" in str(raised.value)
    assert str(raised.value).count(": the run ") == 1
    assert snapshot(tmp_path) == before


def test_infinity_is_json_and_is_read_back_as_a_number(tmp_path):
    config = CONFIG | {"guard": {"ceiling": math.inf, "knots": (1.0, -math.inf)}}
    run_directory.claim(tmp_path, config, config)

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    for name in ("config.json", "versions.json"):
        json.loads((tmp_path / name).read_text(), parse_constant=refuse)
    saved = load_config(tmp_path)["guard"]
    assert saved == {"ceiling": math.inf, "knots": [1.0, -math.inf]}
    assert run_directory.check_claimable(tmp_path, config, config) == []
    other = CONFIG | {"guard": {"ceiling": 3.0, "knots": (1.0, -math.inf)}}
    with pytest.raises(ValueError, match=r"guard\.ceiling: the run has inf, this command 3\.0"):
        run_directory.check_claimable(tmp_path, other, config)


def test_a_run_whose_config_has_infinity_in_pythons_spelling_resumes(tmp_path):
    config = CONFIG | {"guard": {"ceiling": math.inf}}
    run_directory.claim(tmp_path, config, config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "Infinity" in (tmp_path / "config.json").read_text()
    run_directory.claim(tmp_path, config, config)
    assert "Infinity" not in (tmp_path / "config.json").read_text()


def test_a_setting_that_the_run_does_not_know_takes_its_default_and_says_so(tmp_path):
    run_directory.claim(tmp_path, CONFIG, CONFIG)
    loss = CONFIG["loss"] | {"added": 0.3}
    later = CONFIG | {"loss": loss, "section": {"limit": math.inf, "names": ()}}
    lines = run_directory.check_claimable(tmp_path, later, later)
    assert [line.partition("the setting ")[2] for line in lines] == [
        "loss.added existed: it takes the default, 0.3",
        "section.limit existed: it takes the default, inf",
        "section.names existed: it takes the default, ()",
    ]
    run_directory.claim(tmp_path, later, later)
    assert run_directory.check_claimable(tmp_path, later, later) == []


def test_a_setting_that_the_run_does_not_know_may_not_differ_from_its_default(tmp_path):
    run_directory.claim(tmp_path, CONFIG, CONFIG)
    defaults = CONFIG | {"added": 0.3}
    with pytest.raises(ValueError, match=r"added: the run was .* default 0\.3, this command 0\.4"):
        run_directory.check_claimable(tmp_path, CONFIG | {"added": 0.4}, defaults)


def test_a_setting_that_was_renamed_names_the_nearest(tmp_path):
    before = CONFIG | {"loss": {"beta_lower": 0.5, "beta_high": 1.0}}
    run_directory.claim(tmp_path, before, before)
    message = r"loss\.beta_lower: the run has 0\.5, and this version has no .* is loss\.beta_low:"
    with pytest.raises(ValueError, match=message):
        run_directory.check_claimable(tmp_path, CONFIG, CONFIG)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("versions.json", content) for content in ("", "[", "{}", "3", "\xff")),
        *(("config.json", content) for content in ("", "{", "[]", "3", "\xff")),
    ],
)
def test_a_damaged_description_is_named_and_nothing_changes(name, content, tmp_path):
    run_directory.claim(tmp_path, CONFIG, CONFIG)
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match=rf"{name} is damaged \(") as raised:
        run_directory.claim(tmp_path, CONFIG, CONFIG)
    assert "\n" not in str(raised.value)
    assert snapshot(tmp_path) == before


def test_a_directory_with_other_files_is_refused_and_nothing_changes(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match=r"holds no run \(no config.json\)"):
        run_directory.claim(tmp_path, CONFIG, CONFIG)
    assert snapshot(tmp_path) == before


def test_a_start_killed_while_it_wrote_its_config_is_no_obstacle(tmp_path):
    (tmp_path / "config.partial").write_text('{"se')
    run_directory.claim(tmp_path, CONFIG, CONFIG)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "versions.json"}


def test_load_config_of_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no run: .*config\.json"):
        load_config(tmp_path)


def test_differences_by_hand():
    first = {"a": 1, "b": {"c": (1, 2), "d": {"e": 3}}, "gone": 0}
    second = {"a": 2, "b": {"c": [1, 2], "d": {"e": 4}}, "new": None}
    assert list(differences(first, second)) == [
        ("a", 1, 2),
        ("b.d.e", 3, 4),
        ("gone", 0, "nothing"),
        ("new", "nothing", None),
    ]


def test_git_revision_is_that_of_the_checkout():
    def git(*arguments):
        command = ("git", *arguments)
        return subprocess.run(command, cwd=child_runs.ROOT, capture_output=True, text=True)

    commit = git("rev-parse", "HEAD")
    if commit.returncode:
        assert run_directory.git_revision() == "unknown"
    else:
        assert run_directory.git_revision().removesuffix("+changes") == commit.stdout.strip()


def test_git_revision_without_git_is_unknown(monkeypatch):
    monkeypatch.setenv("PATH", os.devnull)
    assert run_directory.git_revision() == "unknown"


def test_a_finished_run_holds_what_the_readme_promises(finished_run):
    workdir, printed = finished_run
    assert {path.name for path in workdir.iterdir()} == {
        *("config.json", "versions.json", "metrics.jsonl", "tensorboard", "checkpoints"),
        *("updates.jsonl", "samples.jsonl", "tokenizer", "model", "report.png"),
        *(LOCK_FILE_NAME, MARK),
    }
    assert "held-out accuracy  " in printed
    for name in ("report.png", "tensorboard", "samples.jsonl"):
        assert f"{workdir}/{name}" in printed
    assert printed.endswith(f" evaluate --run={workdir}\n")

    config = load_config(workdir)
    assert (config["steps"], config["loss"]["surrogate"]) == (6, "ce_gppo")
    [versions] = json.loads((workdir / "versions.json").read_text())
    assert versions["devices"] == ["cpu: cpu"]
    assert versions["packages"]["jax"][0].isdigit()

    assert (workdir / "report.png").read_bytes().startswith(b"\x89PNG")
    assert len(load_tokenizer(str(workdir / "tokenizer"))) == 5 + len("0123456789+-*=;#")


def test_a_finished_run_has_one_line_a_step_and_events_of_both_phases(finished_run):
    workdir, _ = finished_run
    lines = read_metrics(workdir)
    expected = [(Phase.SUPERVISED, step) for step in range(40)]
    expected += [(Phase.RL, step) for step in range(7)]
    assert [(line["phase"], line["step"]) for line in lines] == expected
    evaluated = [line["step"] for line in lines if "evaluation/accuracy" in line]
    assert evaluated == [0, 2, 4, 6]
    assert all("supervised/loss" in line for line in lines[:40])
    assert all("reward/mean" in line and "policy/entropy" in line for line in lines[41:])
    for phase in Phase:
        assert list((workdir / "tensorboard" / phase).glob("events.out.tfevents.*"))


def test_a_finished_run_has_samples_and_the_newest_checkpoints(finished_run, tiny_run):
    workdir, _ = finished_run
    lines = [json.loads(line) for line in (workdir / "samples.jsonl").read_text().splitlines()]
    assert [(line["step"], line["sample"]) for line in lines] == [
        (step, sample) for step in (2, 4, 6) for sample in range(4)
    ]
    for line in lines:
        text = line["completion"]
        right = text.count("#") == 1 and text.endswith(f"#{line['answer']}")
        assert (line["outcome"] == "correct") == right == (line["reward"] == 1.0)
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["4", "6"]
    keep = tiny_run.settings.checkpoint.keep
    with Checkpointer(workdir / "checkpoints", keep) as checkpointer:
        assert checkpointer.latest_step() == 6


def test_a_start_on_other_versions_is_added_and_a_like_one_is_not(tmp_path, monkeypatch):
    path = tmp_path / "versions.json"
    for commit in ("a", "a", "b"):
        monkeypatch.setattr(run_directory, "versions", lambda commit=commit: {"git": commit})
        run_directory.record_versions(path, {"sampler": {"attention": "auto"}})
    kernels = {"attention": {"sampler": "xla"}}
    assert json.loads(path.read_text()) == [{"git": "a"} | kernels, {"git": "b"} | kernels]


def test_the_versions_say_which_attention_the_devices_got(tmp_path):
    config = {"sampler": {"attention": "auto"}, "trainer": {"attention": "splash"}}
    built = {"cache": "contiguous"}
    run_directory.record_versions(tmp_path / "versions.json", config, built)
    [start] = json.loads((tmp_path / "versions.json").read_text())
    assert start["attention"] == {"sampler": "xla", "trainer": "splash_interpreted"}
    assert start["cache"] == "contiguous"


def test_an_error_after_the_verifiers_have_started_ends_them(monkeypatch, tmp_path):
    closed = []
    scorer = SimpleNamespace(close=lambda: closed.append(True))
    built = SimpleNamespace(
        actor=SimpleNamespace(scorer=scorer, sampler=SimpleNamespace(cache="contiguous")),
        memory="",
        model=None,
        mesh=None,
        ends=SimpleNamespace(ids=()),
        problems=SimpleNamespace(tokenizer=None),
    )
    monkeypatch.setattr(run_state, "build_run", lambda settings, activity: built)
    monkeypatch.setattr(run_state, "check_disk", lambda *about: "")
    monkeypatch.setattr(run_state, "describe_ends", lambda ids, tokenizer: "")

    def full(workdir, config, defaults, built):
        raise OSError("no space left")

    monkeypatch.setattr(run_state.run_directory, "claim", full)
    with pytest.raises(OSError, match="no space left"):
        run_state.prepare_run(tiny_recipe.get_config(), tmp_path / "run")
    assert closed == [True]
