"""A stand-in for the train command: steps take as long as it is told, and it resumes like a run.

python stand_in.py WORKDIR STEPS SECONDS [HOW]: how it goes wrong, if it does: "fails" in step 2,
"dies" by SIGKILL in step 2, both only the first time; "stubborn": heeds neither SIGINT nor SIGTERM.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from cegppo_jax.sweeps.arms import ArmRun


def planned(folder, name, how="", steps=3, seconds=0.05):
    """-> a plan.PlannedRun of the stand-in, which needs no jax."""
    workdir = folder / name / "seed0"
    options = (str(workdir), str(steps), str(seconds), *([how] * bool(how)))
    command = (sys.executable, __file__, *options)
    return SimpleNamespace(run=ArmRun(name, 0, {}), workdir=workdir, command=command, steps=steps)


def stop(signum, frame):
    raise SystemExit("stopped; the same command goes on from what is saved")


def main(workdir, steps, seconds, how=""):
    heeds_interrupts = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    if heeds_interrupts and how != "stubborn":
        signal.signal(signal.SIGINT, stop)
    if how == "stubborn":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    folder, steps = Path(workdir), int(steps)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"seed": 0, "steps": steps}))
    first = not (folder / "pids").exists()
    with (folder / "pids").open("a") as pids:
        pids.write(f"{os.getpid()} {sorted(os.sched_getaffinity(0))}\n")
    taken = [int(one.name) for one in (folder / "checkpoints").glob("*")]
    for step in range(max(taken, default=0) + 1, steps + 1):
        if how and first and step == 2:
            if how == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "fails":
                raise SystemExit("error: reward.verifier = 'x' does not exist")
        time.sleep(float(seconds))
        with (folder / "metrics.jsonl").open("a") as metrics:
            line = {"phase": "rl", "step": step, "policy/entropy": 1 / step}
            metrics.write(json.dumps(line) + "\n")
        (folder / "checkpoints" / str(step)).mkdir(parents=True)
        print("step", step, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
