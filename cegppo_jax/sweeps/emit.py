"""Writes a sweep as jobs of engines that run it on other machines. Each job is the ordinary command
of one run, `--arm=ARM/seedN`, in a directory on storage that outlives the machine: an engine that
starts it again after a preemption resumes it.

    skypilot   a YAML file a run, for managed spot jobs on TPU VMs (docs.skypilot.co)
    xpk        a script of `xpk workload create`, for TPUs in GKE
    gcloud     a script that deals the runs out to TPU VMs that exist, by ssh
    wandb      a sweep file, for W&B agents on any machines

A run of a sweep gets one host, so accelerators are those of a single host. How a run on several is
launched: experiments/tpu_vm.md.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from cegppo_jax.read_settings import check_choice
from cegppo_jax.sweeps.arms import ArmRun
from cegppo_jax.sweeps.experiment import Experiment
from cegppo_jax.sweeps.job_scripts import GCLOUD, INSTALL, SKYPILOT, WANDB, XPK

MOUNT = "/sweep"  # where jobs find the bucket
LONGEST_JOB_NAME = 40  # of a GKE workload

# Accelerators of one host, and what their TPU VM runs. In GKE 8 chips of v5e or v6e are two hosts.
RUNTIMES = {
    "v2-8": "tpu-ubuntu2204-base",
    "v3-8": "tpu-ubuntu2204-base",
    "v4-8": "tpu-ubuntu2204-base",
    "v5litepod-1": "v2-alpha-tpuv5-lite",
    "v5litepod-4": "v2-alpha-tpuv5-lite",
    "v5litepod-8": "v2-alpha-tpuv5-lite",
    "v5p-8": "v2-alpha-tpuv5",
    "v6e-1": "v2-alpha-tpuv6e",
    "v6e-4": "v2-alpha-tpuv6e",
    "v6e-8": "v2-alpha-tpuv6e",
}
XPK_TYPES = ("v4-8", "v5p-8", "v6e-1", "v6e-4")


@dataclasses.dataclass(frozen=True)
class JobSettings:
    """What jobs need to know beyond the experiment."""

    accelerator: str
    bucket: str  # name of a Google Cloud Storage bucket; unused by wandb
    folder: str  # of the sweep, where W&B agents find it


def emit(kind: str, experiment: Experiment, settings: JobSettings, out: Path) -> list[Path]:
    """Writes the job files of an engine. Returns their paths.

    Raises:
      ValueError: there is no such engine, the accelerator has several hosts or the engine does not
        offer it, a bucket is missing, or the experiment lies outside the current folder.
    """
    check_choice("--emit", kind, EMITTERS)
    if experiment.path.is_absolute() or ".." in experiment.path.parts:
        raise ValueError(
            f"{experiment.path}: jobs run in a copy of the current folder, so name the experiment "
            "by a path within it"
        )
    if kind != "wandb":
        _check_machines(kind, settings)
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, content in EMITTERS[kind](experiment, settings).items():
        paths.append(out / name)
        paths[-1].write_text(content, encoding="utf-8")
        if name.endswith(".sh"):
            paths[-1].chmod(0o755)
    return paths


def _check_machines(kind: str, settings: JobSettings) -> None:
    offered = XPK_TYPES if kind == "xpk" else RUNTIMES
    if settings.accelerator not in offered:
        raise ValueError(
            f"--accelerator = {settings.accelerator!r}: a run of a sweep gets one host, which has "
            f"with {kind} one of {sorted(offered)}. For several hosts: experiments/tpu_vm.md"
        )
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]", settings.bucket):
        raise ValueError(
            f"--bucket = {settings.bucket!r}: the name of a Google Cloud Storage bucket, without "
            "gs://, in which the runs' directories are kept"
        )


def job_name(experiment: Experiment, run: ArmRun) -> str:
    """Returns a name for a run that engines accept: "sweep-example-beta-low-0-5-seed0-9d3f0a"."""
    text = f"{experiment.name}-{run}"
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]  # beta=1 and beta=-1 differ
    words = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    words = words if words[:1].isalpha() else f"run-{words}"
    return f"{words[: LONGEST_JOB_NAME - 7].rstrip('-')}-{digest}"


def job_command(
    experiment: Experiment, run: ArmRun, folder: str, python: str = "~/cegppo/bin/python"
) -> str:
    """Returns the shell command of a run."""
    words = shlex.join([f"--arm={run}", f"--dir={folder}"])
    return f"{python} -m cegppo_jax.sweep {shlex.quote(str(experiment.path))} {words}"


def skypilot(experiment: Experiment, settings: JobSettings) -> Mapping[str, str]:
    """Returns a task file a run, and a script that launches them as managed spot jobs."""
    files = {}
    for run in experiment.runs:
        name = job_name(experiment, run)
        task = {
            "name": name,
            "resources": {
                "infra": "gcp",
                "accelerators": f"tpu-{settings.accelerator}:1",
                "accelerator_args": {"runtime_version": RUNTIMES[settings.accelerator]},
                "use_spot": True,
            },
            "workdir": ".",
            # MOUNT, not MOUNT_CACHED: what a step has written is in the bucket before the next one
            "file_mounts": {MOUNT: {"source": f"gs://{settings.bucket}", "mode": "MOUNT"}},
            "setup": f"set -e\n{INSTALL}\n",
            "run": f"set -e\n{job_command(experiment, run, f'{MOUNT}/{experiment.name}')}\n",
        }
        files[f"{name}.yaml"] = _yaml(task)
    launch = "\n".join(f'sky jobs launch --yes --detach-run "$here"/{name}' for name in files)
    return {**files, "launch.sh": SKYPILOT.format(name=experiment.name, launch=launch)}


def xpk(experiment: Experiment, settings: JobSettings) -> Mapping[str, str]:
    """Returns a script that creates a GKE workload a run."""
    lines = []
    for run in experiment.runs:
        command = job_command(experiment, run, f"{MOUNT}/{experiment.name}", python="python3")
        lines.append(f"create {job_name(experiment, run)} {shlex.quote(command)}")
    return {"xpk.sh": XPK.format(**_words(experiment, settings), runs="\n".join(lines))}


def gcloud(experiment: Experiment, settings: JobSettings) -> Mapping[str, str]:
    """Returns a script that deals the runs out to TPU VMs."""
    runs = "\n".join(shlex.quote(str(run)) for run in experiment.runs)
    words = _words(experiment, settings)
    return {"gcloud.sh": GCLOUD.format(**words, install=INSTALL, runs=runs)}


def wandb(experiment: Experiment, settings: JobSettings) -> Mapping[str, str]:
    """Returns a sweep file whose agents run one run after another."""
    command = ["${env}", "${interpreter}", "-m", "cegppo_jax.sweep", str(experiment.path)]
    sweep = {
        "name": experiment.name,
        "description": experiment.question,
        "program": str(experiment.path),
        "method": "grid",
        "parameters": {"arm": {"values": [str(run) for run in experiment.runs]}},
        "command": [*command, f"--dir={settings.folder}", "${args}"],
    }
    return {"wandb.yaml": WANDB + _yaml(sweep)}


Emitter = Callable[[Experiment, JobSettings], Mapping[str, str]]
EMITTERS: dict[str, Emitter] = {
    "skypilot": skypilot,
    "xpk": xpk,
    "gcloud": gcloud,
    "wandb": wandb,
}


def _words(experiment: Experiment, settings: JobSettings) -> dict[str, str]:
    return {
        "name": experiment.name,
        "accelerator": settings.accelerator,
        "bucket": settings.bucket,
        "runtime": RUNTIMES[settings.accelerator],
        "mount": MOUNT,
        "path": shlex.quote(str(experiment.path)),
    }


def _yaml(content: Mapping[str, Any]) -> str:
    return yaml.dump(content, Dumper=_Readable, sort_keys=False, allow_unicode=True, width=1000)


class _Readable(yaml.SafeDumper):
    """Writes texts of several lines as blocks."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    )


_Readable.add_representer(str, _text)
