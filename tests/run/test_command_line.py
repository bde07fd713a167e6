"""Bad input ends a command with one line that says what to change, before anything is compiled or
written.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import types

import child_runs
import jax
import jax.numpy as jnp
import pytest
import tiny_recipe
from absl import flags as absl_flags

from cegppo_jax import compare, decontaminate, evaluate, export, supervised, train
from cegppo_jax.console.start import EXIT_CODE, ends_on_bad_input
from cegppo_jax.data.tasks.table import TASKS
from cegppo_jax.data.tokenizer import build_character_tokenizer
from cegppo_jax.losses.surrogates import SURROGATES
from cegppo_jax.run import command_line
from cegppo_jax.run import directory as run_directory
from cegppo_jax.run.saved_model import save_model_description
from configs import presets

COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compilations():
    """A list that grows by one with each program that XLA compiles."""
    seen = []

    def listen(event, duration, **_):
        if event == COMPILED:
            seen.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture
def files(tmp_path):
    """Folder with a tokenizer and two files of problems, and the changes that a config needs."""
    build_character_tokenizer(TASKS["chained_arithmetic"].alphabet).save_pretrained(
        tmp_path / "tokenizer"
    )
    write_problems(tmp_path / "train.jsonl", ["1+1", "2+2", "3+3"])
    write_problems(tmp_path / "held_out.jsonl", ["4+4"])
    return {
        "problems.task": "",
        "problems.train": (str(tmp_path / "train.jsonl"),),
        "problems.held_out": (str(tmp_path / "held_out.jsonl"),),
        "problems.tokenizer": str(tmp_path / "tokenizer"),
    }


def write_problems(path, texts):
    lines = [{"problem": text, "answer": "0", "solution": "#0"} for text in texts]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def message_of(module, monkeypatch, workdir, changes):
    """Runs a command's main with the tiny recipe and these changes -> its last words."""
    config = tiny_recipe.get_config()
    config.update_from_flattened_dict(changes)
    place = {"workdir": str(workdir), "run": str(workdir)}
    values = types.SimpleNamespace(config=config, out=None, step=None, profile_steps=None, **place)
    monkeypatch.setattr(module.flags, "FLAGS", values)
    with pytest.raises(SystemExit) as raised:
        module.main([])
    text = raised.value.code
    assert isinstance(text, str)  # which Python prints, and exits with 1
    assert text.startswith("error: ")
    return text


def test_the_listener_hears_a_compilation(compilations):
    jax.jit(lambda x: x + len(compilations))(jnp.ones(3)).block_until_ready()
    assert compilations


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"batch.prompts": 6, "batch.trained_prompts": 6},
            "batch.trained_prompts = 6 is not a multiple of batch.minibatch_prompts",
        ),
        ({"batch.trained_prompts": 12}, "batch.trained_prompts = 12 exceeds batch.prompts = 8"),
        ({"batch.row_tokens": 8}, "trainer.logprob_chunk_tokens = 32 does not divide"),
        ({"sampling.top_p": 0.9}, "training samples with"),
        ({"loss.surrogate": "ce_gpo"}, "loss.surrogate = 'ce_gpo' does not exist: did you mean"),
        (
            {"loss.wrappers": ("dual_clp",)},
            "loss.wrappers = 'dual_clp' does not exist: did you mean 'dual_clip'?",
        ),
        (
            {"loss.aggregation": "token_men"},
            "loss.aggregation = 'token_men' does not exist: did you mean 'token_mean'?",
        ),
        ({"loss.kl_coef": 0.1}, "loss.kl_coef = 0.1 with loss.kl_place = 'none': name the place"),
        (
            {"steering.controller.enabled": True, "loss.beta_high": 2.5},
            "leave out the base Betas(low=0.5, high=2.5): move either",
        ),
        ({"steering.beta_schedule.kind": "linear"}, "every kind but 'constant' has knots"),
        ({"reward.overlong_policy": "soft_penalty"}, "reward.overlong_buffer_tokens = 4096: from"),
        ({"reward.verifier": "no"}, "reward.verifier = 'no' does not exist"),
        ({"problems.task": "chess"}, "problems.task = 'chess' does not exist"),
        ({"trainer.dtype": "float23"}, "trainer.dtype = 'float23' does not exist"),
        ({"mesh.data": 3}, "mesh data=3 x fsdp=1 x tensor=1 = 3 devices, but 8 are present"),
        ({"mesh.tensor": 3}, "the fixed axes take 3 devices, which do not divide the 8 present"),
        ({"mesh.fsdp": -1}, "at most one of them may be -1"),
        (
            {"mesh.tensor": 2, "model.heads": 6, "model.kv_heads": 3},
            "model.kv_heads = 3 is not divisible by the mesh's tensor = 2",
        ),
        (
            {"mesh.tensor": 2},
            "the model's vocabulary = 21 is not divisible by the mesh's tensor = 2",
        ),
        (
            {"batch.rows_per_microbatch": 12},
            "batch.rows_per_microbatch = 12 is not divisible by the mesh's data x fsdp = 8",
        ),
        (
            {"warm_start.rows_per_microbatch": 12},
            "warm_start.rows_per_microbatch = 12 is not divisible by the mesh's data x fsdp = 8",
        ),
        ({"sampler.slots": 12}, "sampler.slots = 12 is not a positive multiple of the mesh's"),
        (
            {"sampler.cache_read_ladder": (16,)},
            "must rise from 1 at least to below the cache length 16",
        ),
        ({"model.heads": 3, "model.kv_heads": 2}, "model.heads = 3 is not a multiple of"),
        ({"model.head_size": 7}, "model.head_size = 7 is odd"),
        ({"evaluation.problems": 1000}, "only 28 distinct ones were found"),
        (
            {"sampler.max_prompt_tokens": 4},
            "has 5 tokens and max_prompt_tokens is 4: raise the limit",
        ),
        (
            {"sampler.max_completion_tokens": 8},
            "has 9 tokens, its end included, and max_completion_tokens is 8: raise it",
        ),
        ({"problems.long_prompt_policy": "drop"}, "long_prompt_policy is 'drop': choose one of"),
        ({"problems.tokenizer": "/no/such/folder"}, "'/no/such/folder'"),
        ({"problems.system_prompt": "Think"}, "the system prompt has the character 'T'"),
        (
            {"problems.task": ""},
            "name either a built-in task, or problem sets in train and held_out; found",
        ),
    ],
)
def test_bad_settings_end_before_anything_is_compiled_or_written(
    changes, message, compilations, monkeypatch, tmp_path
):
    text = message_of(train, monkeypatch, tmp_path / "run", changes)
    assert message in text
    assert "\n" not in text
    assert compilations == []
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "train.jsonl: it has no problem in it"),
        ('{"problem": "1+1", "answer": "2"}\n\n{"pro', "train.jsonl:3: not JSON: "),
        ('{"problem": "1+1"}\n', "train.jsonl:1: no field 'answer'; the row has ['problem']"),
        (None, "No such file or directory: "),
        ('{"problem": "4+4", "answer": "8"}\n', "1 problems of "),
        ('{"problem": "1+1", "answer": "2"}\n', "problem 'train/1' has no solution to imitate"),
        (
            '{"problem": "1+2+3", "answer": "2", "solution": "#2"}\n',
            "the prompt of problem 'train/1' has 7 tokens and max_prompt_tokens is 5: raise the "
            "limit, or remove the problem, or skip over-long prompts (1 of the 1 checked)",
        ),
        (
            '{"problem": "1+1", "answer": "2", "solution": "1+1=2;1+1=2;#2"}\n',
            "the solution of problem 'train/1' has 15 tokens, its end included, and "
            "max_completion_tokens is 9: raise it",
        ),
    ],
)
def test_bad_problem_files_end_before_anything_is_compiled_or_written(
    content, message, files, compilations, monkeypatch, tmp_path
):
    if content is None:
        (tmp_path / "train.jsonl").unlink()
    else:
        (tmp_path / "train.jsonl").write_text(content)
    text = message_of(train, monkeypatch, tmp_path / "run", files)
    assert message in text
    assert "\n" not in text
    assert compilations == []
    assert not (tmp_path / "run").exists()


def test_a_directory_of_another_run_is_left_alone(compilations, monkeypatch, tmp_path):
    other = tiny_recipe.get_config().to_dict() | {"seed": 5}
    run_directory.claim(tmp_path, other, other)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    text = message_of(train, monkeypatch, tmp_path, {})
    assert text.startswith(f"error: {tmp_path} holds a run of another config:\n")
    assert "\n  seed: the run has 5, this command 0\n" in text
    assert compilations == []
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    assert after == before


def test_a_directory_that_is_no_run_is_left_alone(compilations, monkeypatch, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    assert "is not empty and holds no run" in message_of(train, monkeypatch, tmp_path, {})
    assert "letter.txt is a file: choose" in message_of(
        train, monkeypatch, tmp_path / "letter.txt", {}
    )
    assert compilations == []
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_evaluate_refuses_what_is_no_run(compilations, monkeypatch, tmp_path):
    assert "holds no run of this version" in message_of(evaluate, monkeypatch, tmp_path / "no", {})
    assert not (tmp_path / "no").exists()
    assert compilations == []


def test_evaluate_refuses_a_run_without_a_checkpoint(model, monkeypatch, tmp_path):
    run_directory.claim(tmp_path, tiny_recipe.get_config().to_dict(), {})
    save_model_description(tmp_path, model, eos_ids=(1,))
    text = message_of(evaluate, monkeypatch, tmp_path, {})
    assert text == f"error: {tmp_path} has no finished checkpoint yet: train first"
    assert not (tmp_path / "evaluations").exists()


def test_only_checks_turn_errors_into_last_words():
    """What goes wrong later is a bug or a broken machine, whose traceback is needed."""
    with pytest.raises(SystemExit, match="error: too few"), ends_on_bad_input():
        raise ValueError("too few")
    with pytest.raises(TypeError, match="a bug"), ends_on_bad_input():
        raise TypeError("a bug")


@pytest.mark.parametrize(
    ("argument", "nearest"),
    [
        ("--config.loss.beta_lo=1", "did you mean --config.loss.beta_low?"),
        ("-config.lss.beta_low=1", "did you mean --config.loss.beta_low?"),
        ("--config.beta_high", "did you mean --config.loss.beta_high?"),
        ("--config.guard.floor=1", "did you mean --config.steering.guard.floor?"),
        ("--noconfig.trainer.rematerialize", "did you mean --config.trainer.rematerialise?"),
        ("--config.zzzzz=1", "configs/base.py has them all"),
    ],
)
def test_a_misspelt_override_is_told_the_nearest_name(argument, nearest):
    with pytest.raises(SystemExit) as raised:
        command_line.check_override(argument)
    assert str(raised.value).startswith("error: --config.")
    assert str(raised.value).endswith(f" is not a setting: {nearest}")


@pytest.mark.parametrize(
    "argument",
    [
        *("--config.loss.beta_low=1", "-config.loss.beta_low", "--noconfig.trainer.rematerialise"),
        *("--config.steering.beta_schedule.steps=(3,)", "--config.loss.wrappers=dual_clip"),
        *("--config=configs/quickstart.py:grpo", "--workdir=config.x", "x"),
    ],
)
def test_what_is_spelt_right_or_no_override_passes(argument):
    command_line.check_override(argument)


RECIPE = "from configs import base\n\n\ndef get_config():\n    config = base.get_config()\n"


@pytest.mark.parametrize(
    ("recipe", "flags", "beginning", "end"),
    [
        (None, ("--config.loss.beta_lo=1",), "--config.loss.beta_lo is not a setting: ", "low?"),
        (None, ("--config.steps=1.5",), "flag --config.steps=1.5: ", "base 10: '1.5'"),
        (
            None,
            ("--config.loss.wrappers=dual_clp",),
            "loss.wrappers = 'dual_clp' does not exist: did you mean 'dual_clip'? ",
            "'top_entropy']",
        ),
        (
            "    config.loss.beta_lo = 1.0\n    return config\n",
            (),
            '{path}, line 6: KeyError: Key "beta_lo" does not exist',
            'Did you mean "beta_low" instead of "beta_lo"?',
        ),
        (
            "    config.steps = 'many'\n    return config\n",
            ("--config.loss.beta_low=1",),
            "{path}, line 6: TypeError: Could not override field 'steps'",
            "cannot be casted to type <class 'int'>",
        ),
    ],
    ids=[
        *("misspelt flag", "flag of another type", "a name that does not exist"),
        *("misspelt in recipe", "other type in recipe"),
    ],
)
def test_a_command_ends_with_one_line(recipe, flags, beginning, end, tmp_path):
    path = child_runs.RECIPE
    if recipe is not None:
        path = tmp_path / "recipe.py"
        path.write_text(RECIPE + recipe)
    line = child_runs.refused(tmp_path / "run", *flags, recipe=path)
    assert "\n" not in line
    assert line.startswith("error: " + beginning.format(path=path))
    assert line.endswith(end)
    assert not (tmp_path / "run").exists()


def test_a_process_that_ends_so_prints_no_traceback(tmp_path):
    path = tmp_path / "recipe.py"
    path.write_text(RECIPE + "    config.loss.beta_lo = 1.0\n    return config\n")
    errors = child_runs.fail(tmp_path / "run", recipe=path)
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith(f"error: {path}, line 6: KeyError: ")
    assert not (tmp_path / "run").exists()


def read_recipe(argument):
    return command_line.RecipeParser().parse(argument)


def message_of_recipe(argument):
    with pytest.raises(command_line.RecipeError) as raised:
        read_recipe(argument)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "configs/quickstrat.py",
            "no recipe 'configs/quickstrat.py': did you mean .*quickstart.py?",
        ),
        ("quickstart", "did you mean configs/quickstart.py?"),
        ("config/sums.py:grpo", "no recipe 'config/sums.py': did you mean .*configs/sums.py?"),
        ("configs/zzzzzz.py", "recipes here are .*'quickstart', .*'sums'"),
        ("configs", "there is no recipe 'configs'"),
        ("gs://bucket/recipe.py", "--config = 'gs://bucket/recipe.py' is a URL"),
        ("", "--config is empty"),
        ("configs/quickstart.py:grop", "no variant 'grop' in this recipe; it has .*'gppo', 'grpo'"),
        ("configs/gsm8k_evaluation.py:x", "has no variants, and 'x' asks for one"),
        ("configs/r1_distill_qwen_1p5b.py:grop", "no preset 'grop'; there are .*'dapo'"),
        ("configs/math_evaluation.py:aime", "no evaluation 'aime'; there are .*'aime24'"),
    ],
)
def test_a_recipe_that_does_not_exist_is_named(argument, message, monkeypatch):
    monkeypatch.chdir(child_runs.ROOT)
    assert re.search(message, message_of_recipe(argument))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "{path} has no function get_config()"),
        ("get_config = 3\n", "{path} has no function get_config()"),
        (
            "def get_config():\n    pass\n",
            "get_config() of {path} returns a NoneType, not a Config",
        ),
        ("def get_config():\n    return {{}}\n", "returns a dict, not a ConfigDict"),
        ("def get_config(\n", "{path}, line 1: SyntaxError: "),
        ("\nimport no_such_module\n", "{path}, line 2: ModuleNotFoundError: No module named"),
        ("def get_config():\n    open('/no/such')\n", "{path}, line 2: FileNotFoundError: "),
        ("def get_config(a, b):\n    return 3\n", "{path}: TypeError: get_config() missing 2"),
    ],
)
def test_a_recipe_that_gives_no_config_is_one_line(content, message, tmp_path):
    path = tmp_path / "recipe.py"
    path.write_text(content.format())
    assert message.format(path=path) in message_of_recipe(str(path))


def test_a_recipe_in_the_home_folder_is_read_with_its_variant(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    lines = "from configs import base\n\n\ndef get_config(variant='none'):\n"
    lines += (
        "    config = base.get_config()\n    config.loss.surrogate = variant\n    return config\n"
    )
    (tmp_path / "recipe.py").write_text(lines)
    assert read_recipe("~/recipe.py").loss.surrogate == "none"
    config = read_recipe("~/recipe.py:gppo")
    assert config.loss.surrogate == "gppo"
    assert config.is_locked


@pytest.mark.parametrize(
    "name", [*presets.METHODS, "ppo", "GRPO", "DAPO", "Dr. GRPO", "grpo_official"]
)
def test_a_method_without_a_surrogate_of_its_name_is_pointed_to(name, monkeypatch, tmp_path):
    if name in SURROGATES:
        return
    text = message_of(train, monkeypatch, tmp_path / "run", {"loss.surrogate": name})
    assert text.startswith(f"error: loss.surrogate = {name!r} does not exist: set loss.surrogate=")
    assert "configs/presets.py" in text
    if name in presets.METHODS:
        values = presets.METHODS[name]
        assert f"loss.surrogate={values['loss.surrogate']}" in text
        for knob in ("loss.clip_high", "loss.beta_low", "steering.entropy_bonus.coef"):
            if knob in values and "schedule" not in name:
                assert f"{knob}={values[knob]}" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"advantage.estimator": "GRPO"}, "GRPO's is 'group_normalised'"),
        ({"advantage.estimator": "rloo"}, "RLOO's is 'leave_one_out'"),
        ({"batch.dynamic_sampling": "dapo"}, "DAPO's is 'refill'"),
        ({"loss.surrogate": "CE-GPPO"}, "did you mean 'ce_gppo'?"),
    ],
)
def test_other_names_of_methods_are_understood(changes, message, monkeypatch, tmp_path):
    assert message in message_of(train, monkeypatch, tmp_path / "run", changes)


@pytest.mark.parametrize(
    "argument", ["--config.loss={}", "-config.loss", "--config.steering.guard=1"]
)
def test_a_section_is_not_replaced_whole(argument):
    with pytest.raises(
        SystemExit, match=r"is a section, whose settings are set one by one: --conf"
    ):
        command_line.check_override(argument)


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (train, ["workdir"]),
        (supervised, ["workdir"]),
        (evaluate, ["run", "out"]),
        (compare, ["first", "second", "out"]),
        (export, ["run", "out"]),
        (decontaminate, ["out", "write"]),
    ],
)
def test_no_command_takes_any_url_for_a_folder(module, names, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = tiny_recipe.get_config()
    own = dict(workdir="a", out="b", first="c", second="d", train="e.jsonl", write="f.jsonl")
    own |= dict(run="a")
    other = dict(step=None, dtype="float32", shard_gigabytes=1.0, against=["g.jsonl"], ngram=9)
    other |= dict(min_share=0.0, fields="plain", config=config)
    for name in names:
        for url in ("s3://bucket/there", "file:///there"):
            if url.startswith("s3") and (module, name) in ((export, "out"), (compare, "out")):
                continue  # what is written once may be in any bucket
            values = types.SimpleNamespace(**own | other | {name: url})
            monkeypatch.setattr(module.flags, "FLAGS", values)
            with pytest.raises(SystemExit, match=r"^error: .*://.* is a URL, and only local"):
                module.main([])
    assert list(tmp_path.iterdir()) == []


def test_the_last_of_an_option_counts_and_an_empty_tuple_clears():
    options = [
        *("--config.loss.wrappers=dual_clip", "--config.loss.wrappers=entropy_ratio"),
        *("--config.problems.held_out=a.jsonl", "--config.problems.held_out="),
        *("--config.problems.train=", "--config.problems.train=('a b.jsonl', 'c.jsonl=0.5')"),
        *("--config.sampler.cache_read_ladder=3,4", "--config.steps=3", "--config.steps=4"),
    ]
    configs = []
    with child_runs.in_this_process("evaluate", None, *options):
        command_line.run("evaluate", lambda argv: configs.append(absl_flags.FLAGS.config))
    [config] = configs
    assert config.loss.wrappers == ("entropy_ratio",)
    assert config.problems.held_out == ()
    assert config.problems.train == ("a b.jsonl", "c.jsonl=0.5")
    assert config.sampler.cache_read_ladder == (3, 4)
    assert config.steps == 4


COMMANDS = ("train", "supervised", "evaluate", "compare", "export", "decontaminate", "verify")


@pytest.mark.parametrize(
    ("command", "number"),
    [
        *((f".{name}", "SIGINT") for name in COMMANDS),
        (" compare", "SIGINT"),
        (".export", "SIGTERM"),
        (".train", "SIGHUP"),
    ],
)
def test_a_signal_during_the_imports_is_one_line(command, number, tmp_path):
    """A numpy that is interrupted as it is imported: every command imports it early."""
    (tmp_path / "numpy.py").write_text(
        f"import os, signal\nos.kill(os.getpid(), signal.{number})\n"
    )
    environment = child_runs.environment(None)
    path = f"{child_runs.ROOT}{os.pathsep}{environment.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [sys.executable, "-m", *f"cegppo_jax{command}".split()],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (EXIT_CODE, "stopped\n")


@pytest.fixture
def run_copy(finished_run, tmp_path):
    shutil.copytree(finished_run[0], tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("versions.json", lambda _: b"", "versions.json is damaged (Expecting value"),
        ("config.json", lambda _: b"", "config.json is damaged (Expecting value"),
        ("metrics.jsonl", lambda raw: b"{}\n" + raw, "metrics.jsonl, line 1: not an object with"),
        ("updates.jsonl", lambda raw: b"\xff\n" + raw, "updates.jsonl, line 1: not an object with"),
        ("samples.jsonl", lambda raw: b"[]\n" + raw, "samples.jsonl, line 1: not an object with"),
        ("metrics.jsonl", lambda _: b"", "metrics.jsonl has no lines, and the newest checkpoint"),
        ("metrics.jsonl", lambda raw: raw[: len(raw) // 2], "metrics.jsonl ends with "),
    ],
)
def test_damaged_files_of_a_run_end_its_resumption_with_one_line(
    name, damage, message, run_copy, monkeypatch
):
    path = run_copy / name
    path.write_bytes(damage(path.read_bytes()))
    before = {one: one.read_bytes() for one in run_copy.rglob("*") if one.is_file()}
    text = message_of(train, monkeypatch, run_copy, {})
    assert message in text
    assert "\n" not in text
    assert {one: one.read_bytes() for one in run_copy.rglob("*") if one.is_file()} == before
