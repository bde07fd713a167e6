"""Files that launch runs on TPUs (experiments/tpu): what they call exists, and recipes load; the
script is run with a stand-in for gcloud. No TPU is in it.
"""

import os
import re
import shlex
import subprocess
import sys

import pytest
import yaml
from launchers import check_launch
from test_page_blocks import check_command
from test_pages import ROOT

from cegppo_jax.run.stopping import EXIT_CODE

FOLDER = ROOT / "experiments" / "tpu"
RECIPE = "configs/r1_distill_qwen_1p5b.py"
# Answers as the states in a file say, one after another; `ssh` fails where its answer says so.
GCLOUD = """#!{python}
import json, pathlib, sys
folder = pathlib.Path({folder!r})
with (folder / "calls").open("a") as calls:
    calls.write(json.dumps(["gcloud", *sys.argv[1:]]) + "\\n")
verb = sys.argv[4]
if verb in ("describe", "ssh"):
    left = (folder / verb).read_text().split()
    (folder / verb).write_text(" ".join(left[1:]))
    if verb == "describe":
        errors = {{"NONE": "NOT_FOUND: no such request", "OFFLINE": "no network"}}
        print(left[0]) if left[0] not in errors else sys.exit(errors[left[0]])
    sys.exit(int(left[0]) if verb == "ssh" else 0)
if verb == "scp":
    (folder / "train.sh").write_text(pathlib.Path(sys.argv[6]).read_text())
"""


@pytest.fixture
def launched(tmp_path):
    """Runs train.sh with states of the request and exit codes of training -> (exit code, calls)."""
    program = tmp_path / "bin" / "gcloud"
    program.parent.mkdir()
    program.write_text(GCLOUD.format(python=sys.executable, folder=str(tmp_path)))
    program.chmod(0o755)

    def launch(*arguments, states, codes=(), **variables):
        (tmp_path / "describe").write_text(" ".join(states))
        (tmp_path / "ssh").write_text(" ".join(map(str, codes)))
        (tmp_path / "calls").write_text("")
        path = f"{program.parent}:{os.environ['PATH']}"
        own = {"PATH": path, "ZONE": "us-east5-a", "PAUSE_SECONDS": "0"} | variables
        done = subprocess.run(
            ["bash", str(FOLDER / "train.sh"), *arguments],
            cwd=ROOT,
            env=os.environ | own,
            capture_output=True,
            text=True,
            timeout=120,
        )
        calls = [yaml.safe_load(line) for line in (tmp_path / "calls").read_text().splitlines()]
        for call in calls:
            check_launch(call)
        return done.returncode, calls

    return launch


def verbs(calls):
    return [call[4] for call in calls if call[4] != "describe"]


ARGUMENTS = ("run", "v5p-8", "1", f"--config={RECIPE}", "--workdir=gs://my-bucket/runs/a b")


def test_a_machine_that_is_taken_away_is_made_again_and_the_run_goes_on(launched):
    states = ["NONE", "WAITING_FOR_RESOURCES", "ACTIVE", "SUSPENDED", "SUSPENDED", "NONE", "ACTIVE"]
    code, calls = launched(*ARGUMENTS, states=states, codes=(255, 0))
    assert code == 0
    assert verbs(calls) == [
        *("create", "scp", "ssh"),
        *("delete", "create", "scp", "ssh", "delete"),
    ]
    [create, *_] = [call for call in calls if call[4] == "create"]
    assert {"--spot", "--node-id=run", "--accelerator-type=v5p-8"} <= set(create)
    assert "--runtime-version=v2-alpha-tpuv5" in create


def test_what_fails_on_machines_that_live_ends_and_leaves_no_machine(launched):
    code, calls = launched(*ARGUMENTS, states=["ACTIVE"] * 7, codes=(1, 1, 1))
    assert code == 1
    assert verbs(calls) == ["scp", "ssh"] * 3 + ["delete"]


def test_a_request_that_fails_is_made_three_times(launched):
    code, calls = launched(*ARGUMENTS, states=[*["NONE", "FAILED"] * 3, "NONE"])
    assert code == 1
    assert verbs(calls) == ["create", "delete"] * 3


def test_no_answer_is_no_reason_to_ask_for_machines_again(launched):
    code, calls = launched(*ARGUMENTS, states=["OFFLINE", "ACTIVE"], codes=(0,))
    assert code == 0
    assert verbs(calls) == ["scp", "ssh", "delete"]


def test_several_slices_are_one_request_and_need_not_be_spot(launched):
    arguments = ("run", "v6e-16", "2", *ARGUMENTS[3:])
    _, calls = launched(*arguments, states=["NONE", "ACTIVE"], codes=(0,), SPOT="0")
    [create] = [call for call in calls if call[4] == "create"]
    assert {"--node-count=2", "--node-prefix=run", "--runtime-version=v2-alpha-tpuv6e"} <= {*create}
    assert "--spot" not in create
    [ssh] = [call for call in calls if call[4] == "ssh"]
    assert {"--node=all", "--worker=all"} <= set(ssh)


def test_every_host_trains_as_asked_and_again_after_the_exit_code_of_a_stop(launched, tmp_path):
    launched(*ARGUMENTS, states=["ACTIVE"], codes=(0,))
    script = (tmp_path / "train.sh").read_text()
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    [command] = re.findall(r"(?m)-m cegppo_jax (train .*) \|\| code", script)
    name, *arguments = shlex.split(command)
    assert arguments == ["--distributed", *ARGUMENTS[3:]]
    check_command(name, arguments)
    # The loop alone, with a run that is stopped twice
    loop = script[script.index("code=75") :].replace("~/cegppo/bin/python -m cegppo_jax", "run")
    run = f"n=0; run() {{ n=$((n + 1)); echo go; ((n > 2)) || return {EXIT_CODE}; return 3; }}\n"
    done = subprocess.run(["bash", "-c", run + loop], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("go\n" * 3, 3)


def test_too_few_arguments_ask_for_nothing(launched):
    assert launched("run", "v5p-8", states=[]) == (2, [])


def test_the_task_of_skypilot_names_what_exists():
    task = yaml.safe_load((FOLDER / "skypilot.yaml").read_text())
    assert task.keys() == {"name", "resources", "workdir", "envs", "setup", "run"}
    resources = task["resources"]
    assert resources.keys() == {
        *("infra", "accelerators", "accelerator_args", "use_spot", "job_recovery"),
    }
    assert resources["job_recovery"]["recover_on_exit_codes"] == [EXIT_CODE]
    for part in ("setup", "run"):
        subprocess.run(["bash", "-n"], input=task[part], text=True, check=True)
    words = shlex.split(task["run"].replace("\\\n", " ").replace("$BUCKET", "my-bucket"))
    assert words[:4] == ["~/cegppo/bin/python", "-m", "cegppo_jax", "train"]
    check_command("train", words[4:])


def test_the_workload_of_xpk_names_what_exists_and_starts_again_after_a_stop(tmp_path):
    program = tmp_path / "xpk"
    program.write_text(f'#!/bin/bash\nprintf "%s\\0" xpk "$@" >{tmp_path}/call\n')
    program.chmod(0o755)
    named = {"CLUSTER": "c", "PROJECT": "p", "ZONE": "z", "IMAGE": "i", "BUCKET": "my-bucket"}
    variables = os.environ | named | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = ["bash", str(FOLDER / "xpk.sh"), "--spot"]
    subprocess.run(script, env=variables, cwd=ROOT, check=True)
    call = (tmp_path / "call").read_text().rstrip("\0").split("\0")
    check_launch(call)
    values = dict(word.partition("=")[::2] for word in call if word.startswith("--"))
    assert str(EXIT_CODE) in values["--restart-on-exit-codes"].split(",")
    assert "--spot" in call
    words = shlex.split(values["--command"])
    assert words[:4] == ["python3", "-m", "cegppo_jax", "train"]
    check_command("train", words[4:])
