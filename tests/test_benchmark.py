"""The benchmark at tiny sizes: every work runs and says what it promises, costs are counted right,
peers are read by their contract. No time is compared with another.
"""

import dataclasses
import json
import re
import sys

import numpy as np
import pytest

from cegppo_jax.models.config import ModelConfig
from experiments.benchmark import __main__ as program
from experiments.benchmark import growth, machine, measure, prompts
from experiments.benchmark.cost import Cost
from experiments.benchmark.peers import PeerFailed, run_command, seconds_of
from experiments.benchmark.works import MODELS, WORKS, config_of

SMALL = ["model.width=16", "model.layers=1", "model.heads=2", "model.kv_heads=1"]
SMALL += ["model.head_size=8", "model.mlp_width=16", "trainer.scan_unroll=1"]
SMALL += ["sampler.cache_read_ladder=()"]
TINY = ["--model=tiny", "--prompts=2", "--samples=4", "--prompt_tokens=4", "--completion_tokens=6"]
TINY += ["--slots=8", "--microbatch=8", *(f"--set={one}" for one in SMALL)]
# It keeps the lengths of its config, and its warm start is left out
QUICK = ["batch.prompts=8", "batch.trained_prompts=8", "batch.minibatch_prompts=8"]
QUICK += ["warm_start.steps=0", "sampler.slots=8", "problems.max_steps=2", *SMALL]
QUICK += ["batch.rows_per_microbatch=8", "sampler.prefill_prompts=8"]

MODEL = ModelConfig(
    vocab_size=11,
    width=4,
    layers=3,
    heads=2,
    kv_heads=1,
    head_size=2,
    mlp_width=5,
    rope_theta=1e4,
    norm_epsilon=1e-6,
    tied_embeddings=True,
)


def measured(name, *arguments):
    options = program.read_options([name, "--repeats=2", *arguments])
    return measure.measure(name, options.asked[name], options.set, options.repeats)


SAME_KIND = ("W1", "W2", "W4")  # as W5, W6 and W3, at other sizes


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SAME_KIND else ())
        for name in WORKS
        if name != "quickstart"
    ],
)
def test_every_work_runs_and_says_what_it_promises(name):
    record = measured(name, *TINY)
    check_record(record)
    work = program.read_options([name, *TINY]).asked[name]
    lengths = work.completion_lengths()
    assert record["completion_tokens"] == lengths.sum()
    assert record["sequence_tokens"] == (lengths + 4).sum()
    if work.lengths == "uniform":
        assert (lengths == 6).all()
    else:
        assert 1 <= lengths.min() < lengths.max() <= 6
    assert record["sizes"]["updates"] == (2 if name == "W3" else 1)


@pytest.mark.slow
def test_the_quickstart_is_measured_as_it_is_but_for_settings():
    record = measured("quickstart", *(f"--set={one}" for one in QUICK))
    check_record(record)
    assert record["products"]["thin"] == 8
    assert 64 <= record["completion_tokens"] <= 64 * 28


def check_record(record):
    assert json.loads(json.dumps(record)) == record
    seconds = record["seconds"]
    assert len(seconds["all"]) == 2
    assert min(seconds["all"]) == seconds["min"] <= seconds["median"] <= seconds["max"]
    assert record["first_seconds"] > 0
    assert record["recompile_seconds"] == 0
    assert record["peak_host_gib"] > 0.1
    assert record["completion_tokens_per_second"] == pytest.approx(
        record["completion_tokens"] / seconds["median"]
    )
    assert all(part["flops"] + part["bytes"] > 0 for part in record["needs"])
    assert {"platform", "device", "devices", "jax", "peak_device_gib"} <= record.keys()
    if WORKS[record["work"]].kind in ("step", "quickstart"):
        assert {"time/rollout_seconds", "time/update_seconds"} <= record["parts"].keys()


def test_completions_that_end_elsewhere_are_an_error(monkeypatch):
    """A sampler that no longer takes the limits must not pass for a fast one."""
    options = program.read_options(["W5", *TINY])
    uniform = dataclasses.replace(options.asked["W5"], lengths="uniform")
    monkeypatch.setattr(measure, "build", lambda work, *others: prompts.build(uniform, *others))
    with pytest.raises(RuntimeError, match="tokens, not"):
        measure.generation(options.asked["W5"], options.set).repeat()


def test_the_mix_of_lengths_is_that_of_the_peers_measurements():
    drawn = np.random.default_rng(0).normal(np.log(96), 0.6, 256)
    expected = np.clip(np.exp(drawn), 8, 256).astype(int)
    np.testing.assert_array_equal(WORKS["W5"].completion_lengths().ravel(), expected)
    np.testing.assert_array_equal(WORKS["W6"].completion_lengths().ravel(), expected[:64])


def test_costs_of_two_groups_by_hand():
    """Prompts of 2 and 1 tokens with completions of 3 and 1, and of 2."""
    cost, groups = Cost(MODEL, itemsize=2), [(2, [3, 1]), (1, [2])]
    assert cost.body == 3 * (4 * 2 * (2 + 2) + 2 * 2 * 4 + 3 * 4 * 5) == 324
    assert cost.head == 44
    # Keys seen: prompts 1 + 2 and 1; completions 3 + 4 + 5, 3 and 2 + 3
    forward = 2 * 324 * (3 + 6) + 2 * 44 * 6 + 4 * 2 * 2 * 3 * (3 + 1 + 12 + 3 + 5)
    plain = 2 * (324 + 44) * (5 + 3 + 3) + 4 * 2 * 2 * 3 * (15 + 6 + 6)
    assert cost.of_groups(groups) == (forward, plain)
    gradient, optimizer = cost.update(groups, updates=2)
    assert (gradient.flops, gradient.plain_flops) == (3 * forward, 3 * plain)
    assert optimizer.bytes == 2 * 7 * 4 * (324 + 44)
    prefill, decode = cost.generation(groups, slots=2)
    assert prefill.flops == 2 * 324 * 3 + 48 * (3 + 1)
    assert prefill.plain_flops == 2 * 324 * 5 + 48 * (3 + 3 + 1)
    assert decode.flops == 2 * (324 + 44) * 6 + 48 * (12 + 3 + 5)
    # 6 tokens through 2 slots are 3 steps at least; cached are keys and values, 2 numbers a layer
    assert decode.bytes == 2 * (3 * (324 + 44) + 2 * 1 * 2 * 3 * (12 + 3 + 5))
    names = [part.name for part in cost.step(groups, 2, updates=1)]
    assert names == ["prefill", "decode", "gradient", "optimizer"]
    [_, _, old, *_] = cost.step(groups, 2, updates=2)
    assert old.flops == cost.of_groups(groups[1:])[0]


def test_the_body_is_what_the_model_has():
    import jax

    from cegppo_jax.models.decoder import init_params

    leaves = jax.tree.leaves(jax.eval_shape(lambda: init_params(MODEL, jax.random.key(0))))
    norms = (2 * MODEL.layers + 1) * MODEL.width
    cost = Cost(MODEL, itemsize=4)
    assert sum(leaf.size for leaf in leaves) == cost.body + cost.head + norms


def test_limits_take_the_longer_of_arithmetic_and_traffic():
    rates = {"thin": {"a": 1.0, "b": 2.0}, "wide": {"a": 4.0}}
    limits = {"devices": 2, "products_gflops": rates, "copy_gbytes_per_second": 0.5}
    thin = {"rows": "thin", "flops": 8e9, "bytes": 1e9}  # 2 s, 1 s
    wide = {"rows": "wide", "flops": 8e9, "bytes": 3e9}  # 1 s, 3 s
    assert program.limit_seconds([thin, wide], limits) == pytest.approx(5)


def test_the_machine_is_measured(monkeypatch):
    monkeypatch.setattr(machine, "SECONDS", 1e-4)
    monkeypatch.setattr(machine, "COPIED", {"cpu": 2**16})
    shapes = dict(thin=2, wide=4, width=8, mlp_width=16, vocab_size=32, dtype="float32")
    found = machine.limits(shapes)
    assert found["products_gflops"].keys() == {"thin", "wide"}
    assert found["products_gflops"]["wide"].keys() == {"4x8x16", "4x8x32"}
    assert all(rate > 0 for one in found["products_gflops"].values() for rate in one.values())
    assert found["copy_gbytes_per_second"] > 0


def says(text, status=0):
    """A command that prints a text."""
    script = (
        f"import sys; print({text!r}); print('its trouble', file=sys.stderr); sys.exit({status})"
    )
    return [sys.executable, "-S", "-c", script]


@pytest.mark.parametrize(
    ("line", "keys", "expected"),
    [
        ('{"seconds": 2.5}', ["seconds"], ("seconds", 2.5)),
        ('{"s": {"median": 3, "max": 9}}', ["seconds", "s"], ("s", 3.0)),
        ('{"a": 1, "b": {"median": 0.5}}', ["a+c", "a+b"], ("a+b", 1.5)),
        ('{"s": 1}\nnoise {\n{"s": 4}\n[1]\n"word"', ["s"], ("s", 4.0)),
    ],
)
def test_a_peer_is_read_by_its_contract(line, keys, expected):
    assert seconds_of(run_command(says(line)), keys) == expected


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (says('{"seconds": 1}', status=3), "exit status 3: its trouble"),
        (says("no JSON"), "none of its 1 lines is a JSON object"),
        (["/nowhere/peer"], "No such file"),
        ("exit 7", "exit status 7: no output"),
    ],
)
def test_a_peer_that_fails_is_one_line(command, words):
    with pytest.raises(PeerFailed, match=words) as caught:
        run_command(command)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [0, -1, "1", None, True, {"max": 2}, float("nan")])
def test_seconds_are_positive_numbers(value):
    with pytest.raises(PeerFailed, match="s = "):
        seconds_of({"s": value}, ["s"])


def test_a_line_without_the_key_names_those_it_has():
    with pytest.raises(PeerFailed, match=r"'step_s'.*'train_s'"):
        seconds_of({"train_s": 1}, ["step_s"])


OURS = {
    "work": "W4",
    "title": "",
    "products": {},
    "first_seconds": 1,
    "compile_seconds": 1,
    "peak_host_gib": 1.0,
    "peak_device_gib": None,
    "plain_gflops": 1.0,
    "completion_tokens_per_second": 1.0,
    "needs": [{"rows": "wide", "flops": 1e9, "bytes": 0}],
}
RATES = {"thin": {"1": 1.0}, "wide": {"1": 4.0}}
MACHINE = {"machine": "", "dtype": "", "devices": 1, "products_gflops": RATES}


@pytest.fixture
def turns(monkeypatch):
    """Commands are not run: ours take 1, 2 and 4 s, "peer" 3, 4 and 20; "bad" fails."""
    asked, own, theirs = [], iter([1.0, 2.0, 4.0]), iter([3.0, 4.0, 20.0])

    def run(command, environment=None):
        asked.append(command if isinstance(command, str) else command[2].rpartition(".")[2])
        if command == "bad":
            raise PeerFailed("bad: exit status 1: broken")
        if command == "peer":
            return {"peer": "other-1.0", "step_s": {"median": next(theirs)}}
        if asked[-1] == "machine":
            return MACHINE | {"copy_gbytes_per_second": 1.0}
        value = next(own)
        return OURS | {"seconds": {"median": value, "min": value, "max": value}}

    monkeypatch.setattr(program, "run_command", run)
    return asked


def test_ratios_are_taken_round_by_round(turns, capsys, tmp_path):
    file = tmp_path / "lines.jsonl"
    assert program.main(["W4", "--against=peer", f"--json={file}"]) == 0
    assert turns == ["measure", "machine", "peer", "measure", "peer", "measure", "peer"]
    out, words = capsys.readouterr()
    records = [json.loads(line) for line in out.splitlines()]
    assert file.read_text() == out
    ratio = records[-1]["ratio"]
    assert ratio == {"median": 3.0, "min": 2.0, "max": 5.0, "all": [3.0, 2.0, 5.0]}
    assert (records[-1]["peer"], records[-1]["key"]) == ("other-1.0", "step_s")
    assert records[-1]["our_seconds"] == [1, 2, 4]
    assert records[-1]["their_seconds"] == [3, 4, 20]
    own = [one for one in records if "fraction_of_limit" in one]
    assert [one["limit_seconds"] for one in own] == [0.25] * 3
    assert [one["fraction_of_limit"] for one in own] == [0.25, 0.125, 0.0625]
    assert "= 3.00 (2.00 to 5.00, 3 rounds)" in words


def test_a_peer_that_fails_leaves_the_others(turns, capsys):
    assert program.main(["W4", "--against=bad", "--against=peer", "--rounds=1"]) == 1
    out, words = capsys.readouterr()
    records = [json.loads(line) for line in out.splitlines()]
    assert [one["error"] for one in records if "error" in one] == ["bad: exit status 1: broken"]
    assert records[-1]["ratio"]["all"] == [3.0]
    assert "error: W4: bad" in words


def test_sizes_that_do_not_fit_end_the_process_of_a_work_with_one_line(capsys):
    assert program.main(["W2", "--set=batch.row_tokens=100"]) == 1
    out, _ = capsys.readouterr()
    [record] = [json.loads(line) for line in out.splitlines()]
    assert record["work"] == "W2"
    assert re.search(r"exit status 1: error: .*batch\.row_tokens = 100", record["error"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["W9"], "W9"),
        (["W1", "--prompts=0"], "prompts = 0"),
        (["W3", "--prompts=3"], "updates = 2 do not divide prompts = 3"),
        (["W1", "--repeats=0"], "--repeats=0"),
    ],
)
def test_bad_options_are_refused_before_anything_runs(arguments, words, capsys):
    with pytest.raises(SystemExit):
        program.main(arguments)
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_a_misspelt_setting_is_refused():
    with pytest.raises(ValueError, match=r"model\.widht"):
        config_of(WORKS["W1"], ["model.widht=3"], devices=1)


def test_all_names_every_work_once():
    assert list(program.read_options(["all", "W1"]).asked) == list(WORKS)


def test_vocabularies_have_the_size_that_they_are_named_after():
    for shape in MODELS.values():
        task = getattr(prompts, f"V{shape['vocab']}")
        assert len(set(task.alphabet)) == len(task.alphabet) == shape["vocab"] - 5
    with pytest.raises(AttributeError):
        _ = prompts.V7


def test_each_point_of_growth_changes_one_size_of_the_base():
    base = {"slots": 64, "completion tokens": 128, "layers": 4, "vocabulary": 512}
    seen = set()
    for point in growth.points(list(growth.AXES)):
        config = config_of(point.work, point.settings, 1)
        own = base | {point.axis: point.value}
        if point.name == "W1":  # an update has no use for slots
            assert config.sampler.slots == own["slots"]
        assert config.sampler.max_completion_tokens == own["completion tokens"]
        assert config.model.layers == own["layers"]
        assert config.problems.task.endswith(f":V{own['vocabulary']}")
        seen.add((point.name, point.axis, point.value))
    assert len(seen) == 5 + 2 * (5 + 4 + 4)


def test_growth_measures_in_processes_and_draws_what_it_measured(monkeypatch, tmp_path, capsys):
    """The commands are replaced: what a work says is the business of the tests above."""
    monkeypatch.setattr(growth, "AXES", {"slots": (16, 32)})
    monkeypatch.setattr(growth, "WORKS_OF_AXIS", {"slots": ("W1",)})

    def said(command):
        slots = json.loads(command[-1])["work"]["slots"]
        if slots == 32:
            raise PeerFailed("no memory")
        return {
            "products": {},
            "needs": [{"flops": 1e9, "bytes": 0, "rows": "thin"}],
            "completion_tokens": 1000,
            "seconds": {"median": 2.0},
            "peak_host_gib": 1.0,
            "device": "cpu",
        }

    rates = {"products_gflops": {"thin": {"a": 1.0}}, "devices": 1, "copy_gbytes_per_second": 1.0}
    monkeypatch.setattr(growth, "run_command", said)
    monkeypatch.setattr(growth.Machine, "limits", lambda self, products, lines: rates)
    lines = program.Lines(None)
    [record] = growth.measured(["slots"], 1, lines)
    assert lines.failed  # one of two
    assert (record["value"], record["tokens_per_second"]) == (16, 500)
    assert record["limit_tokens_per_second"] == 1000
    assert "50% of the limit" in capsys.readouterr().err
    growth.draw([record], tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 5000
