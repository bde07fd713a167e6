"""How long does the host pack a step of a large recipe, while devices could work?

    python experiments/packing_seconds.py

Groups of random tokens with lengths as `cegppo plan --lengths=lognormal:6000:0.6` takes them, for
the 1.5B recipe; log-probs are zeros at once. What is timed is what the host does for a step:
packing for the old log-probs, reading them, the table of completions, packing for the updates.
Seconds are those of the processor, since a loaded machine adds to the others; it is one thread.
"""

import argparse
import time

import numpy as np

from cegppo_jax.activity import Activity
from cegppo_jax.learner.ahead import start_old_pass
from cegppo_jax.learner.minibatches import make_minibatches, minibatches_of_known
from cegppo_jax.rollout.selection import GroupCounts, StepGroups
from cegppo_jax.run.parts import minibatch_settings
from cegppo_jax.run.settings import RunSettings, read_settings
from cegppo_jax.types import Completion, Outcome, Problem, Prompt, Rollout, Score, StopReason
from configs import r1_distill_qwen_1p5b

PROMPT_TOKENS = 256
PARTS = (
    "lag 0: packing, reading old log-probs, table of completions",
    "lag 1: packing for old log-probs",
    "lag 1: reading old log-probs, beside the updates",
    "lag 1: packing for the updates and table, beside old log-probs of the next rollout",
)


def random_groups(settings: RunSettings, median: float, sigma: float) -> StepGroups:
    """Returns the groups of a step, all of which train."""
    random, batch = np.random.default_rng(0), settings.batch
    longest = settings.sampler.max_completion_tokens
    groups = []
    for index in range(batch.prompts):
        lengths = random.lognormal(np.log(median), sigma, batch.samples_per_prompt)
        completions = tuple(
            Completion(
                index,
                sample,
                random.integers(1000, size=n, dtype=np.int32),
                np.zeros(n, np.float32),
                StopReason.EOS,
                0,
            )
            for sample, n in enumerate(np.clip(lengths.astype(int), 1, longest))
        )
        scores = tuple(
            Score(float(sample % 2), Outcome.CORRECT, None) for sample in range(len(completions))
        )
        prompt = Prompt(Problem(str(index), "", "", "random"), (1,) * PROMPT_TOKENS, index)
        groups.append(Rollout(prompt, completions, ("",) * len(completions), scores))
    return StepGroups(tuple(groups), tuple(groups), (), GroupCounts(*[0] * 10), starved=False)


def main() -> None:
    """Prints the seconds of a step's parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--median", type=float, default=6000)
    parser.add_argument("--sigma", type=float, default=0.6)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    run_settings = read_settings(r1_distill_qwen_1p5b.get_config())
    groups = random_groups(run_settings, options.median, options.sigma)
    settings = minibatch_settings(run_settings)

    def logprobs(params, batch):
        nothing = np.zeros(batch.tokens.shape, np.float32)
        return nothing, nothing

    quiet, seconds = Activity(), np.zeros((options.turns, len(PARTS)))
    for turn in range(options.turns):
        clock = [time.process_time()]
        make_minibatches(groups, {}, None, logprobs, settings, quiet)
        clock.append(time.process_time())
        passed = start_old_pass(groups.drawn, {}, logprobs, settings, quiet)
        clock.append(time.process_time())
        known = passed.read(quiet)
        clock.append(time.process_time())
        minibatches_of_known(groups, known, None, logprobs, settings, quiet)
        clock.append(time.process_time())
        seconds[turn] = np.diff(clock)
    tokens = sum(len(one.tokens) for group in groups.drawn for one in group.completions)
    batch = run_settings.batch
    print(f"{batch.prompts} x {batch.samples_per_prompt} completions, {tokens:,} tokens")
    for name, median in zip(PARTS, np.median(seconds, axis=0), strict=True):
        print(f"{name}: {median:.2f} s of processor")


if __name__ == "__main__":
    main()
