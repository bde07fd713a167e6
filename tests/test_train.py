"""The story of a run, told with a scripted sampler and update: which arrow gets what, and when.

test_resume.py has the real ones.
"""

import dataclasses
import gzip
import json
from concurrent.futures import Future

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from altered_run import altered

from cegppo_jax import train as story
from cegppo_jax.data.prompts import PromptStream
from cegppo_jax.data.sources import FiniteSource
from cegppo_jax.learner.learner import Learner
from cegppo_jax.learner.minibatches import training_sequences
from cegppo_jax.learner.train_state import TrainState
from cegppo_jax.losses.reduce import Mean, Total
from cegppo_jax.reporting import picture
from cegppo_jax.reporting.metrics import read_metrics
from cegppo_jax.rewards.workers.scorer import InProcessScorer
from cegppo_jax.rollout.carried import NOTHING_CARRIED
from cegppo_jax.rollout.difficulty import NOTHING_SEEN
from cegppo_jax.run.build import TrainingRun, minibatch_settings
from cegppo_jax.run.position import RunPosition
from cegppo_jax.steering.steer import START
from cegppo_jax.types import Completion, Outcome, Problem, Prompt, Rollout, Score, StopReason

LENGTHS = (4, 3, 6, 5)  # of the four samples of every prompt
ENTROPY = 0.75  # nats, of every scripted token


class ScriptedSampler:
    """Every prompt's sample s gets LENGTHS[s] tokens: "#0", zeros and EOS; logs its calls."""

    preempted = 0

    def __init__(self, log):
        self.log = log

    def sample(
        self, params, prompts, samples_per_prompt, *, sampling, key, policy_version, done, more
    ):
        assert not done
        indices = [prompt.index for prompt in prompts]
        self.log.append(("sample", indices, policy_version, jax.random.key_data(key).tolist()))
        for prompt in prompts:
            for sample in range(samples_per_prompt):
                n = LENGTHS[sample]
                tokens = np.asarray([*[5] * (n - 3), 20, 5, 1], np.int32)
                logprobs = np.full(n, -0.5, np.float32)
                yield Completion(
                    prompt.index, sample, tokens, logprobs, StopReason.EOS, policy_version
                )

    def release_copy(self):
        self.released_after = [name for name, *_ in self.log]

    def compile_counts(self):
        return {"decode": 1, "prefill": 1}


class ScriptedLearner(Learner):
    """Its parameters are a count of updates."""

    def new_state(self, key):
        zero = jnp.zeros((), jnp.int32)
        return TrainState({"updates": zero}, (), step=zero, updates=zero)

    def state_layout(self):
        return None  # nothing is restored


def changed(settings, **changes):
    """Settings with values changed by dotted name, "/" for the dot."""
    for name, value in changes.items():
        first, _, rest = name.partition("/")
        inner = changed(getattr(settings, first), **{rest: value}) if rest else value
        settings = dataclasses.replace(settings, **{first: inner})
    return settings


@pytest.fixture
def log():
    return []


@pytest.fixture
def scripted(tiny_run, log):
    """Changes of settings -> the tiny run's run, but nothing is sampled, computed or learnt."""

    def logprobs(params, batch):
        log.append(("logprobs", int(params["updates"])))
        nothing = jnp.zeros(batch.tokens.shape)
        return nothing, nothing + ENTROPY

    def update(state, batch, old, knobs, is_old):
        log.append(("update", batch, old, knobs, bool(is_old)))
        entropy = Mean(jnp.float32(len(log)), jnp.float32(1))
        count = Total(jnp.int32(2))
        updates = state.updates + 1
        new_state = dataclasses.replace(state, updates=updates, params={"updates": updates})
        reductions = {
            "policy/entropy": entropy,
            "policy/entropy_change": Mean(jnp.float32(len(log)), jnp.float32(4)),
            "budget/mean": Mean(jnp.float32(-0.5), jnp.float32(1)),
            "update/learning_rate": Mean(jnp.float32(0.25), jnp.float32(1)),
            "update/skipped": Total(jnp.int32(0)),
            "policy/clip_count_low": count,
            "policy/clip_count_high": count,
        }
        nothing = jnp.zeros(batch.tokens.shape)
        return new_state, reductions, (nothing, nothing + ENTROPY)

    class Scripted(TrainingRun):
        def check_compiled_once(self):
            log.append(("compiled once",))

    def scripted(**changes):
        learner = ScriptedLearner(
            tiny_run.mesh, tiny_run.model, tiny_run.learner.optimizer, logprobs, update
        )
        settings = changed(tiny_run.settings, **changes)
        run = altered(
            tiny_run,
            settings=settings,
            minibatches=minibatch_settings(settings),
            sampler=ScriptedSampler(log),
            learner=learner,
            imitator=dataclasses.replace(tiny_run.imitator, steps=0),
        )
        return Scripted(**{f.name: getattr(run, f.name) for f in dataclasses.fields(run)})

    return scripted


@pytest.fixture
def trained(scripted, monkeypatch, tmp_path):
    """Changes of settings -> (workdir, printed words) of a whole scripted run."""
    monkeypatch.setattr(story, "read_newest", lambda *arguments: (None, None, None))
    monkeypatch.setattr(picture, "draw_run", lambda workdir, formats: None)

    def trained(profiled=range(0), **changes):
        story.train(scripted(**changes), tmp_path, profiled)
        return tmp_path

    return trained


def test_a_step_takes_every_arrow_once_and_old_logprobs_come_before_any_update(scripted, log):
    run = scripted()
    taken = story.train_step(run, run.initial_state(run.learner), RunPosition(4, 32, START), None)
    assert [name for name, *_ in log] == ["sample", "logprobs", "update", "update"]
    assert log[0][1:3] == (list(range(32, 40)), 4)  # 8 prompts, drawn by the state of step 4
    assert log[1][1] == 0  # the second mini-batch: by the parameters before any update
    assert [entry[4] for entry in log[2:]] == [True, False]  # the first finds its own
    assert dataclasses.replace(taken.position, difficulty=NOTHING_SEEN) == RunPosition(5, 40, START)
    assert len(taken.position.difficulty.tallies) == 8
    assert (int(taken.state.step), int(taken.state.updates)) == (1, 2)
    assert [rollout.prompt.index for rollout in taken.rollouts] == list(range(32, 40))
    values = taken.values
    assert values["policy/entropy"] == (3 + 4) / 2  # a mean over both updates
    assert values["policy/clip_count_low"] == 4
    assert values["policy/old_entropy"] == ENTROPY
    assert values["policy/sampler_gap_mean"] == 0.5  # the sampler said -0.5, the trainer 0
    # The last update saw what the one before it did: it asked for 0.25 x -0.5.
    assert values["budget/predicted_change"] == -0.125
    assert values["budget/measured_change"] == 4 / 4
    assert values["rollout/prompts_skipped"] == 0
    assert (values["update/num_updates"], values["update/microbatches"]) == (2, 2)


def test_minibatches_hold_whole_groups_in_order_with_their_own_advantages(scripted, log):
    """Each prompt has 5 tokens and completions of 4, 3, 6 and 5: 16 sequences an update."""
    run = scripted()

    def by_sample(text, problem):
        """Rewards 1 and -1: the samples of length 4 and 6 ("0#0" and "000#0") are right."""
        right = len(text) in (3, 5)
        outcome = Outcome.CORRECT if right else Outcome.WRONG
        return Score(1.0 if right else -1.0, outcome, text)

    run = altered(run, scorer=InProcessScorer(by_sample, None))
    rollouts = story.train_step(
        run, run.initial_state(run.learner), RunPosition(0, 0, START), None
    ).rollouts
    batches = [entry[1] for entry in log if entry[0] == "update"]
    for batch, groups in zip(batches, (rollouts[:4], rollouts[4:]), strict=True):
        ids, mask = np.asarray(batch.sequence_ids), np.asarray(batch.completion_mask)
        segments, tokens = np.asarray(batch.segment_ids), np.asarray(batch.tokens)
        for index in range(16):
            prompt = groups[index // 4].prompt
            ours = ids == index
            [(microbatch, row)] = {(u, r) for u, r, _ in np.argwhere(ours)}
            [continued] = set(np.asarray(batch.prompt_segments)[ours])
            # which the group's other completions in the row may share
            assert tuple(tokens[microbatch, row][segments[microbatch, row] == continued]) == (
                prompt.tokens
            )
            assert (ours & mask).sum() == LENGTHS[index % 4]
            expected = 1.0 if index % 2 == 0 else -1.0
            np.testing.assert_allclose(
                np.asarray(batch.advantages)[ours & mask], expected, rtol=1e-5
            )
        np.testing.assert_allclose(np.asarray(batch.loss_weights)[mask], 1 / (4 * sum(LENGTHS)))
        assert not np.asarray(batch.loss_weights)[~mask].any()
        assert ids.max() == 16  # padding


def test_training_sequences_pair_group_and_sample():
    prompt = Prompt(Problem("p", "", "", "test"), (7, 8), index=0)
    later = dataclasses.replace(prompt, index=5)
    completions = tuple(
        Completion(0, s, np.full(s + 1, s), np.zeros(s + 1), StopReason.EOS, 0) for s in range(2)
    )
    rollout = Rollout(prompt, completions, ("", ""), (Score(0, Outcome.WRONG, "0"),) * 2)
    sequences = training_sequences([rollout, dataclasses.replace(rollout, prompt=later)])
    assert [sequence.draw_id for sequence in sequences] == [0, 1, 10, 11]
    assert [len(sequence.completion_tokens) for sequence in sequences] == [1, 2, 1, 2]
    assert all(sequence.prompt_tokens == (7, 8) for sequence in sequences)


def test_over_long_prompts_are_skipped_and_counted(scripted):
    """Of ten problems, the second and the last are too long; a step takes eight prompts."""
    texts = [f"{d}+0" if d not in (1, 9) else f"{d}+0+0" for d in range(10)]
    problems = [Problem(f"p{d}", text, str(d), "test") for d, text in enumerate(texts)]
    run = scripted()
    stream = PromptStream(
        source=FiniteSource(problems),
        tokenizer=run.problems.tokenizer,
        seed=0,
        system_prompt=None,
        max_prompt_tokens=5,
        long_prompt_policy="skip",
    )
    run = altered(run, stream=stream)
    state, position = run.initial_state(run.learner), RunPosition(0, 0, START)
    skipped = 0
    for _ in range(5):  # 40 prompts: five epochs of the eight that fit
        taken = story.train_step(run, state, position, None)
        state, position, rollouts = taken.state, taken.position, taken.rollouts
        skipped += taken.values["rollout/prompts_skipped"]
        assert position.next_prompt == 8 * position.step + skipped
        assert {r.prompt.problem.id for r in rollouts} <= {f"p{d}" for d in (0, *range(2, 9))}
    assert 8 <= skipped <= 10  # two an epoch; the last epoch's may still lie ahead


def test_a_run_evaluates_samples_and_saves_when_due(trained):
    workdir = trained(**{"steps": 5, "checkpoint/every_steps": 3, "evaluation/every_steps": 2})
    lines = read_metrics(workdir)
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4, 5]
    evaluated = [line["step"] for line in lines if "evaluation/accuracy" in line]
    assert evaluated == [0, 2, 4, 5]  # and at the last step
    samples = [json.loads(line) for line in (workdir / "samples.jsonl").read_text().splitlines()]
    assert sorted({line["step"] for line in samples}) == [2, 4, 5]
    assert len(samples) == 3 * 4  # one group each time
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["3", "5"]


def test_each_update_has_a_line_of_its_own_and_the_step_has_their_sum(trained):
    workdir = trained(**{"steps": 3})
    updates = [json.loads(line) for line in (workdir / "updates.jsonl").read_text().splitlines()]
    assert [(line["step"], line["update"]) for line in updates] == [
        (step, update) for step in (1, 2, 3) for update in (0, 1)
    ]
    for line in read_metrics(workdir)[1:]:
        own = [update for update in updates if update["step"] == line["step"]]
        counts = [update["policy/clip_count_low"] for update in own]
        assert counts == [2, 2]
        assert line["policy/clip_count_low"] == sum(counts)
        assert own[0]["policy/entropy"] != own[1]["policy/entropy"]
        means = [update["policy/entropy"] for update in own]
        assert line["policy/entropy"] == pytest.approx(np.mean(means))


def test_samples_are_never_written_when_they_are_off(trained):
    workdir = trained(**{"steps": 2, "logging/samples_every_steps": 0})
    assert (workdir / "samples.jsonl").read_text() == ""


def test_every_evaluation_draws_the_same_way_and_no_two_rollouts_do(trained, log):
    """So two evaluations differ by their policies alone, and no step repeats another's luck."""
    trained(**{"steps": 6, "evaluation/every_steps": 2})
    drawn = [entry for entry in log if entry[0] == "sample"]
    keys = [str(key) for *_, key in drawn]
    assert len(keys) == 4 + 6
    assert sorted(keys.count(key) for key in set(keys)) == [1] * 6 + [4]


def test_a_run_checks_for_recompilation_at_each_step(trained, log):
    trained(**{"steps": 3})
    assert log.count(("compiled once",)) == 3


def events_of(workdir):
    """The events of the one trace that a run has written, without those that have no name."""
    [path] = workdir.glob("profile/plugins/profile/*/perfetto_trace.json.gz")
    [_] = path.parent.glob("*.xplane.pb")  # what XProf and TensorBoard read
    with gzip.open(path) as file:
        return [event for event in json.load(file)["traceEvents"] if "name" in event]


def within(inner, outer):
    ends = outer["ts"] + outer["dur"] + 1  # microseconds, rounded
    return outer["ts"] - 1 <= inner["ts"] and inner["ts"] + inner["dur"] <= ends


def test_a_trace_names_what_each_step_does(trained, capsys):
    """Of steps 2 and 3, the second with an evaluation and a checkpoint, as the last step."""
    folder = trained(
        range(2, 4), **{"steps": 3, "evaluation/every_steps": 0, "checkpoint/every_steps": 9}
    )
    events = events_of(folder)
    steps = [event for event in events if event["name"] == "step"]
    assert [event["args"]["step_num"] for event in steps] == ["2", "3"]
    for name in ("rollout", "log-probs", "update"):
        named = [event for event in events if event["name"] == name]
        pairs = zip(named, steps, strict=True)
        assert all(within(inner, outer) for inner, outer in pairs), name
    scored = [event for event in events if event["name"] == "scoring"]
    rollouts = [event for event in events if event["name"] in ("rollout", "evaluation")]
    assert len(scored) >= 2 * 8 * 4  # a completion each
    assert all(any(within(one, rollout) for rollout in rollouts) for one in scored)
    for name in ("evaluation", "checkpoint"):
        [event] = [event for event in events if event["name"] == name]
        assert within(event, steps[1])
    assert f"xprof --logdir={folder}/profile" in capsys.readouterr().out


def test_an_error_ends_the_trace(trained, tmp_path, monkeypatch):
    def broken(run, state, position, reference):
        raise RuntimeError("broken")

    monkeypatch.setattr(story, "train_step", broken)
    with pytest.raises(RuntimeError, match="broken"):
        trained(range(1, 3), **{"steps": 3})
    assert events_of(tmp_path)
    with pytest.raises(RuntimeError, match="No profile started"):
        jax.profiler.stop_trace()


def test_a_run_of_no_steps_evaluates_and_saves_its_start(trained, capsys):
    workdir = trained(**{"steps": 0})
    assert [line["step"] for line in read_metrics(workdir)] == [0]
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["0"]
    printed = capsys.readouterr().out
    assert "+0.0 points in 0 steps" in printed
    assert "policy entropy" not in printed


def test_a_step_says_what_it_does_and_how_far_it_is(scripted, log, monkeypatch):
    run, said = scripted(), []

    def at(detail):
        said.append((*(stage.name for stage in run.activity.now), detail))

    monkeypatch.setattr(run.activity, "at", at)
    story.train_step(run, run.initial_state(run.learner), RunPosition(4, 32, START), None)
    assert said == [
        ("log-probs", "1 of 1"),  # the first mini-batch's come out of its update
        ("update", "1 of 2"),
        ("update", "2 of 2"),
    ]
    assert run.activity.now == ()


def test_with_a_lag_a_step_hands_over_the_next_rollout_before_its_own_updates(scripted, log):
    changes = {"batch/rollout_lag_steps": 1, "logging/entropy_change_every_steps": 0}
    run = scripted(**changes)
    state, position = run.initial_state(run.learner), RunPosition(0, 0, START)
    order, drawn, taken = [], [], []
    for _ in range(run.settings.steps):
        log.clear()
        taken.append(story.train_step(run, state, position, None))
        state, position = taken[-1].state, taken[-1].position
        order.append([name for name, *_ in log])
        drawn += [(*entry[1:3], entry[3]) for entry in log if entry[0] == "sample"]
        assert {entry[4] for entry in log if entry[0] == "update"} == {False}  # never finds its own
        made = [updates for name, updates, *_ in log if name == "logprobs"]
        assert made == [2 * (len(order) - 1)] * len(made)  # before any update of the step
    sampled, updated = ["sample", "logprobs", "logprobs"], ["update", "update"]
    assert order == [sampled * 2 + updated, *[sampled + updated] * 4, updated]
    assert [(indices[0], version) for indices, version, _ in drawn] == [
        *((0, 0), (8, 0), (16, 1), (24, 2), (32, 3), (40, 4))
    ]
    of_steps = [jax.random.fold_in(run.source.key, step) for step in range(1, 7)]
    assert [key for *_, key in drawn] == [jax.random.key_data(key).tolist() for key in of_steps]
    assert [one.rollouts[0].prompt.index for one in taken] == [0, 8, 16, 24, 32, 40]
    assert [one.values["rollout/staleness_mean_steps"] for one in taken] == [0, *[1] * 5]
    assert [one.position.next_prompt for one in taken] == [8, 16, 24, 32, 40, 48]
    assert taken[-1].position.ahead is None
    assert not any("budget/measured_change" in one.values for one in taken)  # old is older
    # Where it is due, it is measured from the policy before the updates
    log.clear()
    run = scripted(**changes | {"logging/entropy_change_every_steps": 1})
    taken = story.train_step(run, state, RunPosition(5, 0, START), None)
    assert [name for name, *_ in log] == [*sampled, *sampled[1:], *updated, *sampled[1:]]
    assert [entry[1] for entry in log if entry[0] == "logprobs"] == [12, 12, 12, 12, 14, 14]
    assert taken.values["budget/measured_change"] == 0


def test_with_a_lag_no_score_is_waited_for_before_the_next_rollout_is_drawn(scripted, log):
    """Those of a rollout come when the first completion of the next one is handed in."""

    class Unwaited(Future):
        def result(self, timeout=None):
            assert self.done(), "waited for"
            return super().result(timeout)

    class Later(InProcessScorer):
        waiting, judged = (), 0

        def submit(self, text, problem):
            if len(self.waiting) == 32:
                for future in self.waiting:
                    future.set_result(Score(float(self.judged % 3), Outcome.CORRECT, text))
                    self.judged += 1
                self.waiting = ()
            self.waiting = (*self.waiting, Unwaited())
            return self.waiting[-1]

    plain = scripted(**{"batch/rollout_lag_steps": 1})
    run = altered(plain, scorer=Later(None, None))
    state, position = run.initial_state(run.learner), RunPosition(0, 0, START)
    for step in range(3):
        taken = story.train_step(run, state, position, None)
        state, position = taken.state, taken.position
        rewards = [score.reward for group in taken.rollouts for score in group.scores]
        assert rewards == [float(n % 3) for n in range(32 * step, 32 * step + 32)]
    at_once = altered(run, settings=changed(run.settings, **{"batch/rollout_lag_steps": 0}))
    with pytest.raises(AssertionError, match="waited for"):
        story.train_step(at_once, state, RunPosition(0, 0, START), None)


def test_the_decode_copy_is_given_up_before_the_updates(scripted, log):
    run = scripted()
    story.train_step(run, run.initial_state(run.learner), RunPosition(4, 32, START), None)
    assert run.actor.sampler.released_after == ["sample"]


def test_all_updates_are_handed_over_before_any_result_is_waited_for(scripted, log, monkeypatch):
    run, get = scripted(), jax.device_get

    def fetch(values):
        log.append(("fetch",))
        return get(values)

    monkeypatch.setattr(jax, "device_get", fetch)
    story.train_step(run, run.initial_state(run.learner), RunPosition(4, 32, START), None)
    assert [name for name, *_ in log if name in ("update", "fetch")] == [
        *["update"] * 2,
        *["fetch"] * 2,
    ]


@pytest.mark.parametrize(
    ("step", "every", "last", "due"),
    [
        (3, 3, 10, True),
        (4, 3, 10, False),
        (10, 3, 10, True),
        (5, 0, 10, False),
        (10, 0, 10, True),
    ],
)
def test_is_due(step, every, last, due):
    assert story.is_due(step, every, last) is due


def test_closing_words_by_hand(tmp_path):
    def line(step, **values):
        return {"phase": "rl", "step": step} | {n.replace("__", "/"): v for n, v in values.items()}

    def evaluated(mean, low, high):
        names = ("evaluation/accuracy", "evaluation/accuracy_low", "evaluation/accuracy_high")
        return dict(zip(names, (mean, low, high), strict=True))

    def clipped(low, high):
        return {"policy/clip_count_low": low, "policy/clip_count_high": high}

    lines = [
        {"phase": "supervised", "step": 0, "supervised/loss": 3.0},
        line(0) | evaluated(0.25, 0.2, 0.3),
        line(1, policy__entropy=0.8125) | clipped(1000.0, 20.0),
        line(2, policy__entropy=0.5) | clipped(500.0, 1.0) | evaluated(0.625, 0.6, 0.65),
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    words = story.closing_words(tmp_path)
    assert "held-out accuracy  25.0% [20.0%, 30.0%] -> 62.5% [60.0%, 65.0%], +37.5 points" in words
    assert "points in 2 steps (95 % intervals over problems)" in words
    assert "policy entropy     0.812 -> 0.500 nats; " in words
    assert "clipped tokens: 1,500 left, 21 right of the interval" in words
    (tmp_path / "report.png").touch()
    (tmp_path / "tensorboard").mkdir()
    lines = story.closing_words(tmp_path).splitlines()
    under = next(i for i, line in enumerate(lines) if line.startswith("curves  "))
    assert lines[under].endswith("report.png")
    assert lines[under + 1].endswith(f"{tmp_path}/tensorboard")
    assert f"report {tmp_path} --out={tmp_path}/report.html" in lines[under + 2]


def test_a_schedule_moves_the_betas_of_its_step(scripted, log):
    """Knot at step 2, 0-based: the third step's updates are the first with its betas."""
    knot = {"steps": (2,), "beta_low": (0.25,), "beta_high": (1.5,), "kind": "piecewise"}
    run = scripted()
    schedule = dataclasses.replace(run.settings.steering.beta_schedule, **knot)
    steering = dataclasses.replace(run.settings.steering, beta_schedule=schedule)
    run = scripted(steering=steering)
    state, position = run.initial_state(run.learner), RunPosition(0, 0, START)
    for _ in range(4):
        taken = story.train_step(run, state, position, None)
        state, position = taken.state, taken.position
    knobs = [entry[3] for entry in log if entry[0] == "update"]
    betas = [(float(one.beta_low), float(one.beta_high)) for one in knobs]
    assert betas == [(0.5, 1.0)] * 4 + [(0.25, 1.5)] * 4  # two updates a step


def controlled(run, **changes):
    """The steering settings with an enabled controller."""
    controller = dataclasses.replace(
        run.settings.steering.controller, enabled=True, smoothing=0.0, **changes
    )
    return dataclasses.replace(run.settings.steering, controller=controller)


def test_the_controller_acts_on_the_entropy_of_its_own_step(scripted, log):
    """0.75 nats are measured, 1.5 wanted: beta_low falls by gain x ln 2, beta_high rises by it."""
    band = {"entropy_low": 1.5, "entropy_high": 1.5, "integral_gain": 0.0}
    run = scripted()
    run = scripted(steering=controlled(run, proportional_gain=0.5, **band))
    taken = story.train_step(run, run.initial_state(run.learner), RunPosition(0, 0, START), None)
    [knobs, _] = [entry[3] for entry in log if entry[0] == "update"]
    np.testing.assert_allclose(knobs.beta_low, 0.5 - 0.5 * np.log(2), rtol=1e-6)
    np.testing.assert_allclose(knobs.beta_high, 1.0 + 0.5 * np.log(2), rtol=1e-6)
    assert taken.position.steering.controller.smoothed_entropy == ENTROPY
    assert taken.values["steering/beta_low"] == pytest.approx(0.5 - 0.5 * np.log(2))


def guarded(run, **changes):
    """The steering settings with a guard."""
    guard = dataclasses.replace(run.settings.steering.guard, **changes)
    return dataclasses.replace(run.settings.steering, guard=guard)


def test_a_step_of_a_rollback_makes_no_update(scripted, log):
    """What it drew came from the policy that is left behind."""
    run = scripted()
    steering = guarded(run, floor=1.0, patience_steps=1, rollback=True, beta_step=0.25)
    run = scripted(steering=steering)
    good = dataclasses.replace(START, guard=dataclasses.replace(START.guard, last_good_step=2))
    taken = story.train_step(run, run.initial_state(run.learner), RunPosition(5, 0, good), None)
    assert taken.action == "rollback_low"
    assert not [entry for entry in log if entry[0] == "update"]
    assert taken.values["update/num_updates"] == 0
    assert (taken.values["steering/alarm"], taken.values["steering/rollbacks"]) == (-1, 1)
    assert taken.values["steering/beta_low"] == 0.25
    assert int(taken.state.step) == 1
    assert "step 2, betas" in story.guard_words(6, taken)


def test_a_rollback_drops_the_groups_of_the_policy_that_is_left_behind(scripted, log):
    """Those that would have trained, those that waited and those that would have: all stale."""
    changes = {"batch/dynamic_sampling": "carry_over", "batch/trained_prompts": 4}

    def half(text, problem):
        right = len(text) in (3, 5)
        return Score(float(right), Outcome.CORRECT if right else Outcome.WRONG, text)

    plain = altered(scripted(**changes), scorer=InProcessScorer(half, None))
    before = story.train_step(
        plain, plain.initial_state(plain.learner), RunPosition(4, 0, START), None
    )
    assert len(before.position.carried.groups) == 4
    steering = guarded(plain, floor=1.0, patience_steps=1, rollback=True)
    changes["batch/max_staleness_steps"] = 2
    run = scripted(**changes | {"batch/trained_prompts": 8}, steering=steering)
    run = altered(
        run,
        scorer=InProcessScorer(half, None),
        minibatches=dataclasses.replace(run.minibatches, measures_all=True),
    )
    good = dataclasses.replace(START, guard=dataclasses.replace(START.guard, last_good_step=2))
    position = dataclasses.replace(before.position, steering=good)
    log.clear()
    taken = story.train_step(run, before.state, position, None)
    assert taken.action == "rollback_low"
    assert not [entry for entry in log if entry[0] == "update"]
    values = taken.values
    assert (values["rollout/groups_carried_in"], values["rollout/groups_drawn"]) == (4, 8)
    assert values["rollout/groups_dropped_stale"] == 12
    assert values["rollout/groups_trained"] == values["rollout/groups_carried_out"] == 0
    assert taken.position.carried == NOTHING_CARRIED
    assert taken.position.next_prompt == 16  # the stream goes on
    assert len(taken.position.difficulty.tallies) == 16  # what is known of problems stays


def test_a_step_in_which_nothing_trains_goes_on(scripted, log):
    """Every answer is wrong: the filter drops all groups."""
    run = scripted(**{"batch/dynamic_sampling": "filter"})
    wrong = InProcessScorer(lambda text, problem: Score(-1.0, Outcome.WRONG, text), None)
    run = altered(run, scorer=wrong)
    taken = story.train_step(run, run.initial_state(run.learner), RunPosition(0, 0, START), None)
    assert [name for name, *_ in log] == ["sample"]
    assert taken.values["rollout/groups_dropped_too_hard"] == 8
    assert taken.values["rollout/starved"] == 1
    assert taken.values["update/num_updates"] == 0
    assert (taken.position.step, int(taken.state.step), int(taken.state.updates)) == (1, 1, 0)
