"""Measures one work in a process of its own, so that its peak memory is its own, and prints a line
of JSON. `python -m experiments.benchmark` starts it:

    python -m experiments.benchmark.measure \
        '{"name": "W4", "work": {...}, "settings": [], "repeats": 3}'
"""

from __future__ import annotations

import dataclasses
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import cegppo_jax as cg
from cegppo_jax.learner.minibatches import Minibatch, make_minibatches
from cegppo_jax.learner.train_state import TrainState
from cegppo_jax.models.decoder import Params
from cegppo_jax.packing import PackedBatch
from cegppo_jax.run.build import TrainingRun
from cegppo_jax.run.position import RunPosition
from cegppo_jax.steering.steer import START, steer
from cegppo_jax.train import StepTaken, take_updates, train_step
from cegppo_jax.types import Rollout
from experiments.benchmark.cost import Cost, Lengths, Part
from experiments.benchmark.prompts import build, random_groups
from experiments.benchmark.works import SIZES, Work, config_of

COMPILING = "/jax/core/compile/backend_compile_duration"


@dataclasses.dataclass(frozen=True)
class Done:
    """One repeat of a work."""

    groups: Lengths
    parts: dict[str, float] = dataclasses.field(default_factory=dict)  # seconds by name


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A work, ready to be repeated."""

    run: TrainingRun
    repeat: Callable[[], Done]
    cost: Callable[[Cost, Lengths], list[Part]]


def lengths_of(rollouts: Sequence[Rollout]) -> Lengths:
    """Returns the tokens of each group."""
    return [(len(one.prompt.tokens), [len(c.tokens) for c in one.completions]) for one in rollouts]


def generation(work: Work, settings: list[str]) -> Prepared:
    """The sampler, from prompts to completions on the host."""
    run = build(work, settings, jax.device_count())
    params = run.initial_state(run.learner).params
    prompts = run.source.stream.take(0, work.prompts).prompts
    wanted = work.completion_lengths()

    def repeat() -> Done:
        drawn = run.actor.sampler.sample(
            params,
            prompts,
            work.samples,
            sampling=run.settings.sampling,
            key=run.source.key,
            policy_version=0,
        )
        found = np.zeros_like(wanted)
        for one in drawn:
            found[one.prompt_index, one.sample_index] = len(one.tokens)
        if not np.array_equal(found, wanted):
            raise RuntimeError(f"completions have {found.tolist()} tokens, not {wanted.tolist()}")
        pairs = zip(prompts, found, strict=True)
        return Done([(len(prompt.tokens), own.tolist()) for prompt, own in pairs])

    slots = run.settings.sampler.slots
    return Prepared(run, repeat, lambda cost, groups: cost.generation(groups, slots))


def prepared_minibatches(
    run: TrainingRun, work: Work, params: Params
) -> tuple[Lengths, list[Minibatch]]:
    """Returns the mini-batches of random groups. The old log-probabilities are not computed: they
    say that all tokens were equally likely.
    """
    groups = random_groups(run, work)

    def equal(params: Params, batch: PackedBatch) -> tuple[jax.Array, jax.Array]:
        entropy = jnp.full(batch.tokens.shape, np.log(run.model.vocab_size), jnp.float32)
        return -entropy, entropy

    made = make_minibatches(groups, params, None, equal, run.minibatches, run.activity)
    return lengths_of(groups.trained), made.minibatches


def update(work: Work, settings: list[str]) -> Prepared:
    """The updates of a step, without its rollout and its old log-probabilities."""
    run = build(work, settings, jax.device_count())
    state = run.initial_state(run.learner)
    lengths, minibatches = prepared_minibatches(run, work, state.params)
    finds_old = run.minibatches.update_finds_old
    _, steering = steer(run.settings.steering, START, run.settings.base_betas, 0, 1.0)

    def repeat() -> Done:
        nonlocal state
        state, *_ = take_updates(run, state, minibatches, steering, finds_old)
        jax.block_until_ready(state)
        return Done(lengths)

    return Prepared(run, repeat, lambda cost, groups: cost.update(groups, work.updates))


def logprobs(work: Work, settings: list[str]) -> Prepared:
    """Log-probabilities and entropies of a step's completions, by the trainer."""
    run = build(work, settings, jax.device_count())
    params = run.initial_state(run.learner).params
    lengths, minibatches = prepared_minibatches(run, work, params)

    def repeat() -> Done:
        jax.device_get([run.learner.logprobs(params, one.batch) for one in minibatches])
        return Done(lengths)

    return Prepared(run, repeat, Cost.logprobs)


def whole_step(work: Work, settings: list[str]) -> Prepared:
    """A step of training: rollout, scores, old log-probabilities, updates, metrics."""
    run = build(work, settings, jax.device_count())
    state: TrainState = run.initial_state(run.learner)
    position = RunPosition(step=0, next_prompt=0, steering=START)

    def repeat() -> Done:
        nonlocal state, position
        taken = train_step(run, state, position, None)
        state, position = taken.state, taken.position
        return done_of(taken)

    slots = run.settings.sampler.slots
    return Prepared(run, repeat, lambda cost, own: cost.step(own, slots, work.updates))


def quickstart_step(work: Work, settings: list[str]) -> Prepared:
    """A step of configs/quickstart.py, after its warm start."""
    trainer = cg.Trainer(config_of(work, settings, jax.device_count()))
    slots, updates = trainer.run.settings.sampler.slots, trainer.run.settings.batch.updates
    return Prepared(
        trainer.run,
        lambda: done_of(trainer.step()),
        lambda cost, groups: cost.step(groups, slots, updates),
    )


def done_of(taken: StepTaken) -> Done:
    """Returns the groups of a step, and its own times."""
    jax.block_until_ready(taken.state)
    times = {name: v for name, v in taken.values.items() if name.startswith("time/")}
    return Done(lengths_of(taken.rollouts), times)


KINDS: dict[str, Callable[[Work, list[str]], Prepared]] = {
    "generation": generation,
    "update": update,
    "logprobs": logprobs,
    "step": whole_step,
    "quickstart": quickstart_step,
}


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Returns median, extremes and all values."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "all": list(values),
    }


def measure(name: str, work: Work, settings: list[str], repeats: int) -> dict[str, Any]:
    """Returns the record of a work: seconds of `repeats` repeats after a first one, which compiles.

    Raises:
      ValueError: sizes or settings that do not fit.
    """
    compiling: list[float] = []

    def heard(event: str, seconds: float, **_: Any) -> None:
        if event == COMPILING:
            compiling.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(heard)
    began = time.perf_counter()
    prepared = KINDS[work.kind](work, settings)
    setup = time.perf_counter() - began
    times, done = [], []
    with jax.set_mesh(prepared.run.mesh):
        for turn in range(repeats + 1):
            began = time.perf_counter()
            done.append(prepared.repeat())
            times.append(time.perf_counter() - began)
            print(f"{name}: {times[-1]:.3f} s", file=sys.stderr, flush=True)
            if turn == 0:
                compiled = sum(compiling)
    seconds = spread(times[1:])
    parts = {part: spread([one.parts[part] for one in done[1:]]) for part in done[-1].parts}
    record = {
        "work": name,
        "title": work.title,
        "peer": f"cegppo_jax-{cg.__version__}",
        "seconds": seconds,
        "setup_seconds": setup,
        "first_seconds": times[0],
        "compile_seconds": compiled,
        "recompile_seconds": sum(compiling) - compiled,
        "parts": parts,
        "sizes": {size: getattr(work, size) for size in ("model", "dtype", "lengths", *SIZES)},
        "settings": settings,
    }
    return record | counted(prepared, done[-1].groups, seconds["median"]) | memory() | device()


def counted(prepared: Prepared, groups: Lengths, seconds: float) -> dict[str, Any]:
    """Returns tokens a second, and what the work needs at least."""
    settings, model = prepared.run.settings, prepared.run.model
    cost = Cost(model, jnp.dtype(settings.sampler.dtype).itemsize)
    parts = prepared.cost(cost, groups)
    completions = sum(sum(own) for _, own in groups)
    micro = settings.batch.rows_per_microbatch * settings.batch.row_tokens
    return {
        "completion_tokens": completions,
        "sequence_tokens": completions + sum(prompt * len(own) for prompt, own in groups),
        "completion_tokens_per_second": completions / seconds,
        "plain_gflops": sum(part.plain_flops for part in parts) / seconds / 1e9,
        "needs": [dataclasses.asdict(part) for part in parts],
        "products": {
            "thin": settings.sampler.slots,
            "wide": micro,
            "width": model.width,
            "mlp_width": model.mlp_width,
            "vocab_size": model.vocab_size,
            "dtype": settings.trainer.dtype,
        },
    }


def memory() -> dict[str, float | None]:
    """Returns the peaks of this process so far: of the host, and of one device where it counts."""
    unit = 2**10 if sys.platform != "darwin" else 1
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    counts = [one.memory_stats() or {} for one in jax.local_devices()]
    peaks = [one["peak_bytes_in_use"] for one in counts if "peak_bytes_in_use" in one]
    return {
        "peak_host_gib": host / 2**30,
        "peak_device_gib": max(peaks) / 2**30 if peaks else None,
    }


def device() -> dict[str, Any]:
    """Returns what the work ran on."""
    one = jax.devices()[0]
    return {
        "platform": one.platform,
        "device": one.device_kind,
        "devices": jax.device_count(),
        "jax": jax.__version__,
    }


def main() -> None:
    """Prints the record of the work that the command line names, as JSON."""
    asked = json.loads(sys.argv[1])
    try:
        work = Work(**asked["work"])
        record = measure(asked["name"], work, asked["settings"], asked["repeats"])
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
