"""Code blocks of README.md and the pages behind it: every day each command is parsed, with its
recipe and settings; the slow test runs the blocks, with training cut to two steps of a tiny model.
"""

import importlib
import os
import re
import shutil
import sys
from pathlib import Path

import page_blocks
import pytest
from absl import flags
from launchers import check_launch
from ml_collections import config_flags
from test_pages import PAGES, ROOT

from cegppo_jax.console.table import COMMANDS
from cegppo_jax.run import command_line
from cegppo_jax.run.settings import read_evaluate_settings, read_settings
from experiments.benchmark import __main__ as benchmark

# The names of the extras, read from setup.py.
EXTRAS = set(re.findall(r'(?m)^    "(\w+)": \[', (ROOT / "setup.py").read_text("utf-8")))
BLOCKS = {page: page_blocks.blocks_of(ROOT, page) for page in PAGES}
WITH_BASH = [page for page, found in BLOCKS.items() if any(b.language == "bash" for b in found)]
NEEDS = {"network", "TPU", "GPU", "hours"}
READERS = {
    "train": read_settings,
    "supervised": read_settings,
    "evaluate": read_evaluate_settings,
}
# Two steps of a tiny model, for any recipe whose sampler takes it.
SHORT = {
    "steps": 2,
    "model.width": 16,
    "model.layers": 1,
    "model.heads": 2,
    "model.kv_heads": 1,
    "model.head_size": 8,
    "model.mlp_width": 32,
    "trainer.scan_unroll": 1,
    "warm_start.steps": 2,
    "warm_start.sequences": 8,
    "warm_start.rows_per_microbatch": 8,
    "batch.prompts": 8,
    "batch.trained_prompts": 8,
    "batch.minibatch_prompts": 4,
    "batch.samples_per_prompt": 2,
    "batch.rows_per_microbatch": 8,
    "sampler.slots": 16,
    "sampler.prefill_prompts": 8,
    "evaluation.problems": 8,
    "evaluation.samples_per_problem": 2,
}


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder of blocks as the place that commands are started from: its modules can be imported,
    and are forgotten afterwards.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    own = [path.stem for path in tmp_path.glob("*.py")]
    for name in [n for n in sys.modules if n in own or n.startswith("cegppo_jax_recipe_")]:
        del sys.modules[name]


def check_python(arguments, block):
    """A call of python: -c CODE, -m MODULE ..., or FILE.py ..."""
    first, *rest = arguments
    if first == "-c":
        compile(rest[0], block.page, "exec")
    elif first == "-m" and rest[0].startswith("cegppo_jax"):
        _, _, command = rest[0].partition(".")
        check_command(*([command, rest[1:]] if command else [rest[1], rest[2:]]))
    elif first == "-m" and rest[0] == "experiments.benchmark":
        benchmark.read_options(rest[1:])
    elif first == "-m":
        importlib.import_module(rest[0])
        for word in rest[1:]:
            assert word.startswith("-") or "slow" in word or word == "auto" or os.path.exists(word)
    else:
        source = Path(first).read_text()
        for option in rest:
            if option.startswith("--"):
                assert f'"{option.partition("=")[0]}"' in source, option


def check_command(name, arguments):
    """A command of the package: its flags exist, its recipe loads, its settings can be read."""
    command, values, argv = COMMANDS[name], flags.FlagValues(), [name, *arguments]
    if command.define_flags is None:  # it reads its arguments itself
        importlib.import_module(f"cegppo_jax.{name}").arguments().parse_args(arguments)
        return
    command.define_flags(values)
    if name in READERS:
        if not any(word.startswith("--config=") for word in arguments):  # that of a run
            argv.insert(1, "--config=configs/quickstart.py")
        config_flags.register_flag_parser_for_type(tuple, command_line.TupleParser())
        del values.config
        config_flags.DEFINE_config_file("config", None, flag_values=values, sys_argv=argv)
        values["config"].parser = command_line.RecipeParser(arguments)
    without_a_name = values(argv)[1:]
    assert len(without_a_name) <= len(command.takes) or command.takes[-1].endswith("...")
    assert all(values[one].value is not None for one in command.required)
    if name in READERS:
        assert READERS[name](values.config)


def check_install(arguments, block):
    """A call of pip: the package itself with extras that it has, or what comes from the network."""
    for word in arguments[1:]:
        if own := re.fullmatch(r"\.(?:\[(.+)\])?", word):
            assert set((own[1] or "").split(",")) - {""} <= EXTRAS
        elif not word.startswith("-"):
            assert "network" in block.needs, word


@pytest.mark.parametrize("page", WITH_BASH)
def test_every_command_of_a_page_is_one(page, elsewhere):
    folder = page_blocks.folder_for(ROOT, elsewhere)
    for block in BLOCKS[page]:
        assert not block.needs or set(block.needs.split(", ")) <= NEEDS
        if block.file:
            (folder / block.file).write_text(block.code)
        if block.language == "bash":
            calls = page_blocks.run(ROOT, folder, block.code)
            assert calls, "no command that a test knows"
            for tool, *arguments in calls:
                if tool.startswith("python"):
                    check_python(arguments, block)
                elif tool == "cegppo":
                    check_command(arguments[0], arguments[1:])
                elif tool == "pip":
                    check_install(arguments, block)
                elif tool == "bash":
                    assert os.path.exists(ROOT / arguments[0])
                    if arguments[0].endswith("tpu/train.sh"):  # NAME ACCELERATOR SLICES
                        check_command("train", arguments[4:])
                elif tool in page_blocks.LAUNCHERS:
                    check_launch([tool, *arguments])


def test_python_is_python():
    for blocks in BLOCKS.values():
        for block in blocks:
            if block.language == "python":
                compile(block.code, block.page, "exec")


EVERY_DAY = ("experiments/howto/from_trl.md",)  # trains nothing, and has a verifier of a user's
RUN = [
    pytest.param(page, marks=() if page in EVERY_DAY else pytest.mark.slow)
    for page in WITH_BASH
    if page != "CONTRIBUTING.md"
]


@pytest.mark.parametrize("page", RUN)
def test_the_blocks_of_a_page_run(page, tmp_path, request):
    """One after the other in a folder outside the checkout, as by somebody who has run the
    README's first command.
    """
    folder = page_blocks.folder_for(ROOT, tmp_path, short=SHORT)
    if page != "README.md" and "runs/quickstart" in PAGES[page]:
        workdir, _ = request.getfixturevalue("finished_run")
        shutil.copytree(workdir, folder / "runs" / "quickstart")
    for block in BLOCKS[page]:
        if block.file:
            (folder / block.file).write_text(block.code)
        elif block.language == "bash" and not block.needs:
            page_blocks.run(ROOT, folder, block.code)
