"""The console: one table of commands, help that is fast, and one line for what cannot be run."""

import os
import re
import shlex
import subprocess
import sys

import child_runs
import pytest
from absl import flags

import cegppo_jax
from cegppo_jax.console import main as console
from cegppo_jax.console.help import FLOW, PAGE_WIDTH, command_help, help_asked, overview
from cegppo_jax.console.table import COMMANDS, how_to_run

OWN_FLAGS = [name for name, command in COMMANDS.items() if command.define_flags]


def cegppo(*arguments, module="cegppo_jax"):
    """-> a finished process of `python -m cegppo_jax ...`, which `cegppo` is the same as."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=child_runs.ROOT,
        env=child_runs.environment(None),
        capture_output=True,
        text=True,
    )


def said(capsys, monkeypatch, *arguments):
    """-> what the console prints in this process."""
    monkeypatch.setattr(sys, "argv", ["cegppo", *arguments])
    console.main()
    return capsys.readouterr().out


def test_the_table_is_the_commands_that_there_are():
    """A command is a module of the top level that can be run."""
    found = {
        path.stem
        for path in (child_runs.ROOT / "cegppo_jax").glob("*.py")
        if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
    }
    assert found - {"__main__"} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_stands_in_the_overview_with_its_example(name):
    lines = [line.strip() for line in overview().splitlines()]
    assert f"cegppo {name} {COMMANDS[name].example}".strip() in lines
    assert any(line.split()[:1] == [name] and COMMANDS[name].does in line for line in lines)


def test_the_flow_names_commands_and_the_overview_fits_a_terminal():
    drawn = set(re.findall(r"[a-z]+", FLOW.partition("\n\n")[2].partition("\n\n")[0])) - {"recipe"}
    assert {"train", "sweep", "report", "evaluate", "compare", "export"} <= drawn <= set(COMMANDS)
    assert max(map(len, overview().splitlines())) <= PAGE_WIDTH


@pytest.mark.parametrize("name", OWN_FLAGS)
def test_the_example_of_a_command_is_read_by_its_flags(name):
    command = COMMANDS[name]
    values = flags.FlagValues()
    command.define_flags(values)
    if "config" in values:  # the flag's own parser imports the recipe
        values["config"].parser = flags.ArgumentParser()
    _, *others = values(["cegppo", *shlex.split(command.example)])
    assert len(others) <= len(command.takes)
    assert all(values[required].value is not None for required in command.required)


@pytest.mark.parametrize("name", OWN_FLAGS)
def test_help_shows_the_command_s_own_flags_and_the_settings_that_matter(name):
    page = command_help(name)
    values = flags.FlagValues()
    COMMANDS[name].define_flags(values)
    shown = set(re.findall(r"^  --(?:\[no\])?(\w+)", page, re.M))
    assert shown == {*values, "help"}
    for setting in COMMANDS[name].settings:
        assert re.search(rf"^  {re.escape(setting)}=", page, re.M)
    assert ("--help=config" in page) == bool(COMMANDS[name].settings)
    assert max(map(len, page.splitlines())) <= PAGE_WIDTH


def test_help_of_train_lists_defaults_and_meanings():
    page = command_help("train")
    assert re.search(r"^  loss\.beta_low=0\.5 +Beta_1: gradient kept left", page, re.M)
    assert re.search(r"^  optimizer\.learning_rate=1e-06 +peak", page, re.M)


def test_help_of_a_section_a_setting_or_all():
    whole, loss, one = (command_help("train", what) for what in ("config", "loss", "loss.beta_low"))
    assert {"\n  steering.guard.floor=0.0", "\n  loss.beta_low=0.5"} <= {
        line for line in re.findall(r"\n  [\w.]+=\S*", whole)
    }
    assert "loss.clip_low=" in loss
    assert "steering." not in loss
    assert "loss.clip_low=" not in one
    assert "loss.beta_low=0.5" in one
    assert command_help("train", "config.loss") == loss


@pytest.mark.parametrize(
    ("name", "asked", "message"),
    [
        ("train", "lss", "--help=lss is no setting and no section: did you mean --help=loss?"),
        ("train", "zzzzzz", "--help=config lists them all"),
        ("compare", "loss", "cegppo compare reads no config"),
    ],
)
def test_help_of_nothing_is_one_line(name, asked, message):
    with pytest.raises(SystemExit, match=re.escape(message)):
        command_help(name, asked)


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["--help"], ""),
        (["--config=x", "-h"], ""),
        (["--help=loss"], "loss"),
        (["--helpfull"], None),
        (["--config.help=1", "help"], None),
    ],
)
def test_what_asks_for_help(arguments, asked):
    assert help_asked(arguments) == asked


@pytest.mark.parametrize("name", ["sweep"])
def test_a_command_with_a_parser_of_its_own_prints_its_help(name):
    done = cegppo(name, "--help")
    assert COMMANDS[name].define_flags is None
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: cegppo {name} ")
    for option in re.findall(r"--\w+", COMMANDS[name].example):
        assert option in done.stdout


@pytest.mark.parametrize("name", [None, *OWN_FLAGS])
def test_help_needs_no_jax(name):
    """As a process that says afterwards what it has imported."""
    script = (
        "import sys; from cegppo_jax.console.main import main\n"
        "sys.argv[1:] = sys.argv[1:] or ['--help']; main()\n"
        "print('jax' in sys.modules, 'transformers' in sys.modules)"
    )
    arguments = [] if name is None else [name, "--help"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=child_runs.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False False"


def test_the_module_of_a_command_prints_the_same_help():
    mine, modules = cegppo("verify", "--help"), cegppo("--help", module="cegppo_jax.verify")
    assert (mine.returncode, modules.returncode) == (0, 0)
    assert mine.stdout == modules.stdout == command_help("verify") + "\n"


def test_helpfull_has_the_flags_of_absl_as_well():
    done = cegppo("verify", "--helpfull")
    assert "--gold" in done.stdout
    assert "--pdb" in done.stdout


@pytest.mark.parametrize("arguments", ["--help", "help verify", "recipes"])
def test_a_reader_may_leave_before_the_end(arguments):
    """As `cegppo --help | head -1` does."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "cegppo_jax", *arguments.split()],
        cwd=child_runs.ROOT,
        env=child_runs.environment(None),
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_is_a_command_as_well(capsys, monkeypatch):
    assert said(capsys, monkeypatch, "help") == overview() + "\n"
    assert said(capsys, monkeypatch, "help", "train") == command_help("train") + "\n"


def test_version_and_no_arguments(capsys, monkeypatch):
    assert said(capsys, monkeypatch, "--version") == f"cegppo_jax {cegppo_jax.__version__}\n"
    assert said(capsys, monkeypatch) == said(capsys, monkeypatch, "--help") == overview() + "\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trai"], "no command 'trai': did you mean cegppo train?"),
        (["zzzzzz"], "no command 'zzzzzz': there are recipes, train, "),
        (["--config=x", "train"], "--config=x where a command is expected"),
    ],
)
def test_what_is_no_command_is_one_line(arguments, message, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["cegppo", *arguments])
    with pytest.raises(SystemExit) as raised:
        console.main()
    assert message in raised.value.code  # text: Python prints it, and exits with 1


def again(arguments, message):
    """A command that others of the list start as well: a proof, since a process takes seconds."""
    return pytest.param(arguments, message, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "--gld=1"], "--gld is no flag of cegppo verify: did you mean --gold?"),
        again(["verify", "--zzzzzz"], "--zzzzzz is no flag of cegppo verify: cegppo verify --help"),
        again(["verify", "--gold=1"], "give --verifier, as in: cegppo verify --verifier=math"),
        again(["verify", "--show=-1"], "--show=-1"),
        again(["verify", "--verifier=math", "1"], "['1'] are not flags"),
        (["verify", "--verifier=math", "--rows=no.jsonl"], "--rows=no.jsonl: there is no such"),
        again(
            ["verify", "--verifier=math", "--scope=al", "--gold=1", "--text=1"], "--scope = 'al'"
        ),
        (["compare", "a"], "give two evaluations or runs"),
        again(["compare", "a", "b", "c"], "['c'] are not flags"),
        again(["compare", "--second=b", "a", "c"], "give two evaluations or runs"),
        again(["compare", "a", "b"], "a does not exist"),
        (["recipes", "nowhere"], "nowhere does not exist"),
        again(["recipes", "tests/data"], "tests/data holds no recipe"),
        (["export", "--run=a"], "give --out, as in: cegppo export --run="),
        (["report"], "no run: give the directories of one run or more"),
        (["sweep"], "required: experiment (cegppo sweep --help)"),
        again(["report", "--ot=a", "b"], "--ot is no flag of cegppo report: did you mean --out?"),
    ],
)
def test_bad_arguments_end_with_one_line_and_exit_code_1(arguments, message):
    done = cegppo(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_command_runs_and_its_exit_code_is_the_console_s():
    right = ("verify", "--verifier=math", r"--gold=\frac{1}{2}", "--text=The answer is 0.5.")
    done = cegppo(*right)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "correct")
    assert done.stderr == ""


def test_what_is_printed_to_be_typed_is_what_is_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert how_to_run("evaluate", "--run=a b") == "python -m cegppo_jax evaluate '--run=a b'"
    (tmp_path / "cegppo").touch(mode=0o755)
    assert how_to_run("recipes") == "cegppo recipes"
    monkeypatch.setattr(sys, "executable", "/elsewhere/python")  # another environment's program
    assert how_to_run("recipes") == "python -m cegppo_jax recipes"
