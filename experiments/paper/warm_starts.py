"""Computes the warm start of each seed once, and gives it to every arm of the paper's experiments.

    python -m experiments.paper.warm_starts --seeds 0 1 2 3 4 --runs=runs/paper

Without it every run computes its own, which is the same to the last bit: it depends on the seed
and the task, and on nothing that an arm changes. A fifth to a third of the time is saved. Runs that
have begun are left alone; `cegppo sweep ... --run --dir=runs/paper` then resumes each from step 0.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from cegppo_jax.saved_config import CONFIG_FILE_NAME, flat
from cegppo_jax.storage import strict_json
from cegppo_jax.sweeps.arms import ArmRun
from cegppo_jax.sweeps.experiment import read_experiment
from cegppo_jax.sweeps.plan import config_of
from cegppo_jax.sweeps.state import is_finished

HERE = Path(__file__).parent
COPIED = ("checkpoints", "metrics.jsonl", "model", "tokenizer")
# What no warm start depends on; whatever else differs gets one of its own
ARM_SETTINGS = ("loss.", "optimizer.", "steering.", "batch.minibatch_prompts")
ARM_SETTINGS += ("batch.dynamic_sampling", "batch.prompt_weighting")


def warm_start(folder: Path, path: Path, run: ArmRun) -> Path:
    """Returns the directory of a run without a step, for all runs of its seed with that warm start.
    It is made if it is not there.
    """
    shared = flat(config_of(path, run).to_dict() | {"steps": 0, "seed": 0})
    kept = {name: value for name, value in shared.items() if not name.startswith(ARM_SETTINGS)}
    digest = hashlib.blake2b(strict_json.dumps(kept, sort_keys=True).encode(), digest_size=4)
    workdir = folder / "warm_start" / digest.hexdigest() / f"seed{run.seed}"
    if not is_finished(workdir):
        command = [sys.executable, "-m", "cegppo_jax.train", f"--workdir={workdir}"]
        command += [f"--config={path}", *run.options(), "--config.steps=0"]
        cache = {"JAX_COMPILATION_CACHE_DIR": str(folder.absolute() / ".compiled")}
        subprocess.run(command, check=True, env={**cache, **os.environ})
    return workdir


def give(source: Path, path: Path, run: ArmRun, workdir: Path) -> None:
    """Makes the directory of a run that has taken no step, from that of its warm start."""
    workdir.mkdir(parents=True)
    for name in COPIED:
        copy = shutil.copytree if (source / name).is_dir() else shutil.copy
        copy(source / name, workdir / name)
    config = config_of(path, run).to_dict() | {"command": "train"}
    strict_json.write_json(workdir / CONFIG_FILE_NAME, config)  # last: now it is a run


def main() -> None:
    """Makes the warm starts of some seeds, and every run of them that is not there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--runs", type=Path, required=True)
    options = parser.parse_args()
    for seed in options.seeds:
        for path in sorted(HERE.glob("e[0-9]*.py")):
            for run in read_experiment(path).runs:
                workdir = options.runs / str(run)
                if run.seed == seed and not workdir.exists():
                    give(warm_start(options.runs, path, run), path, run, workdir)
                    print(f"begun: {workdir}", flush=True)


if __name__ == "__main__":
    main()
