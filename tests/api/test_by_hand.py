"""The package driven by hand: what the API computes is what training computes."""

import dataclasses
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from damped_method import DAMPED, damped

import cegppo_jax as cg
from cegppo_jax.losses.surrogates import SURROGATES
from cegppo_jax.rewards.finding import judged
from cegppo_jax.sharding import MeshShape, make_mesh

TEXTS, SAMPLES, TOKENS = ["1+2=", "12+34="], 4, 16
# Larger steps than one would train with, so that tokens leave the clip interval.
RATE = 2e-2


def same(first, second, tolerance=1e-5):
    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def policy():
    return cg.random_policy(width=16, layers=1, heads=2)


@pytest.fixture(scope="module")
def out(policy):
    return policy.sample(TEXTS, SAMPLES, max_tokens=TOKENS)


@pytest.fixture(scope="module")
def batch(out):
    return cg.batch(out, np.arange(8.0).reshape(2, 4) % 3, correct=np.eye(2, 4, dtype=bool))


@pytest.fixture(scope="module")
def moved(policy, batch):
    """The policy after one update, with others to come on the same samples."""
    return policy.update(batch, learning_rate=RATE)


def test_a_prompt_stands_once_for_its_completions(policy):
    read = policy.read(TEXTS[0], [["3", "4", "5"]])
    packed = read.pack(rows=2)
    assert (packed.segment_ids > 0).sum() == len(read.prompts[0].tokens) + read.lengths.sum()


def test_the_example_of_the_page_runs_as_it_stands(capsys):
    """And prints what the page says, but for numbers that rounding and devices may change."""
    page = Path(cg.__file__).parent / "api" / "README.md"
    code, expected = re.findall(r"```\w*\n(.*?)```", page.read_text(), re.DOTALL)[:2]
    exec(code, names := {})
    assert names["policy"].updates == 1

    def words(text):
        return re.sub(r"[-+]?\d[\d.,]*(e[-+]\d+)?", "#", text.replace("devices", "device")).split()

    assert words(capsys.readouterr().out) == words(expected)


def test_samples_have_the_shapes_and_seeds_that_were_asked_for(policy, out):
    assert out.shape == (2, SAMPLES)
    assert out.lengths.shape == (2, SAMPLES)
    assert 1 <= out.lengths.min() <= out.lengths.max() <= TOKENS
    again = policy.sample(TEXTS, SAMPLES, max_tokens=TOKENS)
    assert again.texts == out.texts
    assert policy.sample(TEXTS, SAMPLES, max_tokens=TOKENS, seed=1).texts != out.texts
    # The place decides, and not what stands beside it.
    assert policy.sample(TEXTS[0], SAMPLES, max_tokens=TOKENS).texts == out.texts[:1]


def test_printing_is_short_and_says_the_numbers(policy, out, batch, moved):
    stats = policy.logprobs(out)
    _, terms = cg.loss("ce_gppo", stats, batch)
    for thing in (policy, out, batch, stats, terms, moved):
        assert len(repr(thing)) < 200
        assert "array" not in repr(thing)
    tokens = f"{out.lengths.sum()} tokens"
    assert all(tokens in repr(thing) for thing in (out, batch, stats, terms))
    assert all(text in str(out) for group in out.texts for text in group)
    assert all(text in str(out) for text in TEXTS)


def test_statistics_are_those_of_the_sampler_and_fit_each_completion(policy, out, batch):
    stats = policy.logprobs(out)
    drawn = [one for group in out.completions for one in group]
    assert [len(one) for one in stats.slope] == [len(one.tokens) for one in drawn]
    same(stats.logprobs, [one.sampler_logprobs for one in drawn], 1e-4)
    same(stats.entropy, policy.logprobs(batch, rows=1).entropy)
    assert all((one <= np.log(policy.model.vocab_size) + 1e-5).all() for one in stats.entropy)


def test_written_completions_are_read_back(policy):
    read = policy.read(["1+2="], [["3", "1+2"]])
    assert read.texts == (("3", "1+2"),)
    assert [len(one) for one in policy.logprobs(read).logprobs] == [2, 4]
    cg.batch(read, [[1, -1]])


UPDATE_ALONE = {"update/grad_norm", "update/grad_norm_max", "update/learning_rate"}


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("ce_gppo", dict(beta_low=0.5, beta_high=2.0, clip_low=0.05, entropy_coef=0.01)),
        pytest.param("gspo", dict(clip_low=0.02, positive_lm_coef=0.1), marks=pytest.mark.slow),
        pytest.param(
            "clip_cov",
            dict(covariance_fraction=0.3, covariance_low=-9.0, covariance_high=9.0),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "ppo_clip", dict(wrappers=("stochastic_preservation",)), marks=pytest.mark.slow
        ),
        (DAMPED, dict(damping=0.5)),
    ],
    ids=["ce_gppo", "gspo", "clip_cov", "preservation", "own"],
)
def test_the_loss_is_the_one_that_an_update_takes(policy, batch, moved, method, options):
    """Value, clip regions and entropy budget: of the second update on samples, where ratios differ
    from 1.
    """
    stats, old = moved.logprobs(batch), policy.logprobs(batch)
    value, terms = cg.loss(method, stats, batch, old=old, **options)
    after = moved.update(batch, method, old=old, learning_rate=RATE, rows=1, **options)
    assert value == pytest.approx(after.metrics["update/loss"], rel=1e-4, abs=1e-6)
    assert terms.metrics.keys() == {n for n in after.metrics if not n.startswith("update/")}
    for name, number in terms.metrics.items():
        assert number == pytest.approx(after.metrics[name], rel=1e-3, abs=1e-6, nan_ok=True), name
    total = np.concatenate(terms.entropy_change).sum()
    assert total == pytest.approx(after.metrics["budget/mean"], rel=1e-3, abs=1e-6)
    assert np.concatenate(terms.left).sum() == after.metrics["policy/clip_count_low"]


def test_F_is_what_trains(policy, batch, moved):
    """The gradient of an update is the sum of -weight F A grad ln pi: twice F, twice the gradient,
    and none where F is 0.
    """
    old = policy.logprobs(batch)

    def norm(damping):
        after = moved.update(batch, DAMPED, old=old, learning_rate=RATE, damping=damping)
        _, terms = cg.loss(DAMPED, moved.logprobs(batch), batch, old=old, damping=damping)
        pairs = zip(terms.F, batch.advantages.ravel(), strict=True)
        assert all(np.allclose(one, damping if advantage else 0) for one, advantage in pairs)
        return after.metrics["update/grad_norm"]

    assert norm(0.5) == pytest.approx(2 * norm(0.25), rel=1e-5)
    assert norm(0.0) == 0


def test_terms_are_those_of_plain_arrays(policy, batch, moved):
    stats, old = moved.logprobs(batch), policy.logprobs(batch)
    _, terms = cg.loss("ce_gppo", stats, batch, old=old, beta_low=0.3, clip_low=0.05)
    assert sum(one.any() for one in terms.left) > 0
    for i, advantage in enumerate(batch.advantages.ravel()):
        log_ratio = stats.logprobs[i] - old.logprobs[i]
        plain = cg.surrogate("ce_gppo", log_ratio, advantage, beta_low=0.3, clip_low=0.05)
        np.testing.assert_allclose(plain.gradient, terms.gradient[i], rtol=1e-5)
        weighted = batch.loss_weights.ravel()[i] * plain.gradient
        change = cg.entropy_change(stats.logprobs[i], stats.entropy[i], stats.slope[i], weighted)
        np.testing.assert_allclose(change, terms.entropy_change[i], rtol=1e-5, atol=1e-8)


def test_an_update_leaves_the_policy_it_came_from(policy, out, batch, moved):
    before = policy.logprobs(out)
    second = moved.update(batch, old=before, learning_rate=RATE)
    same(policy.logprobs(out).logprobs, before.logprobs, 0)
    assert (policy.updates, moved.updates, second.updates) == (0, 1, 2)
    # Adam's moments come along: the same update with new ones goes elsewhere.
    forgetful = dataclasses.replace(moved, optimizer_state=None)
    other = forgetful.update(batch, old=before, learning_rate=RATE)
    gap = jax.tree.map(lambda a, b: float(abs(a - b).max()), second.params, other.params)
    assert max(jax.tree.leaves(gap)) > 1e-4


@pytest.mark.slow
def test_a_device_and_eight_give_the_same(policy, out, batch, moved):
    mesh = make_mesh(MeshShape(1, 1, 1), jax.devices()[:1])
    one = cg.random_policy(width=16, layers=1, heads=2, mesh=mesh)
    assert (one.mesh.size, policy.mesh.size) == (1, 8)
    same(one.logprobs(out).logprobs, policy.logprobs(out).logprobs)
    after = one.update(batch, learning_rate=RATE)
    assert after.metrics["update/loss"] == pytest.approx(moved.metrics["update/loss"], abs=1e-5)


def test_a_kl_to_a_reference(policy, batch, moved):
    reference, stats = policy.logprobs(batch), moved.logprobs(batch)
    value, terms = cg.loss("ppo_clip", stats, batch, reference=reference, kl_coef=0.5)
    without, _ = cg.loss("ppo_clip", stats, batch)
    kl = terms.metrics["policy/kl_ref"]
    assert value == pytest.approx(without + 0.5 * kl, rel=1e-4)
    after = moved.update(batch, "ppo_clip", reference=reference, kl_coef=0.5)
    assert after.metrics["policy/kl_ref"] == pytest.approx(kl, rel=1e-3)


@pytest.mark.parametrize(
    ("verifier", "expected"),
    [
        (lambda text, answer: text.startswith(answer), 2.0),
        (lambda text, answer: np.bool_(True), 2.0),
        (lambda text, answer: judged(True, answer), 2.0),
        (lambda text, answer: judged(False, answer), -0.5),
        (lambda text, answer: 0.25, 0.125),  # 0.75 * -0.5 + 0.25 * 2
        ("final_answer", 2.0),
        ("cegppo_jax.rewards.verifiers:final_answer", 2.0),
    ],
)
def test_scores_of_every_kind_of_verifier(policy, verifier, expected):
    text = "#7" if isinstance(verifier, str) else "7"
    written = policy.read(["3+4="], [[text]])
    rewards = cg.score(written, [7], verifier, correct=2.0, wrong=-0.5)
    assert rewards.dtype == np.float32
    assert rewards == [[expected]]


@pytest.mark.parametrize("name", SURROGATES)
def test_every_method_takes_plain_arrays(name):
    terms = cg.surrogate(name, [0.0, 0.1, -0.4], [1.0, -1.0, 1.0], sequence=[0, 0, 1])
    assert terms.value.shape == terms.gradient.shape == (3,)
    np.testing.assert_allclose(
        cg.gradient_weight(name, 1.0, -1.0), -cg.surrogate(name, 0.0, -1.0).gradient
    )


def test_sequences_share_their_ratio():
    terms = cg.surrogate("gspo", [0.4, -0.4, 0.1], 1.0, sequence=[0, 0, 1])
    alone = cg.surrogate("gspo", [0.0, 0.0, 0.1], 1.0)
    np.testing.assert_allclose(terms.gradient, alone.gradient, rtol=1e-6)


def test_methods_of_ones_own():
    by_name = cg.gradient_weight("damped_method:DAMPED", [0.5, 2.0], 1.0)
    np.testing.assert_allclose(by_name, 0.25)
    with pytest.raises(AttributeError, match="damping"):  # a bare function declares no number
        cg.gradient_weight(damped, 1.0, 1.0)
    figure = cg.plot_gradient_weights([DAMPED, "ce_gppo", "clip_cov"], damping=0.1, beta_low=0.1)
    assert [axes.get_title() for axes in figure.axes] == ["damped", "ce_gppo", "clip_cov"]
    assert figure._repr_png_().startswith(b"\x89PNG")


def wrong_calls():
    """-> (what is called with policy, out and batch, what the message names)."""
    yield lambda p, o, b: p.sample([]), "0 texts"
    yield lambda p, o, b: p.sample("1", samples=0), "samples = 0"
    yield lambda p, o, b: p.sample("x"), "'x'"
    yield lambda p, o, b: p.sample("1", temperature=-1.0), "temperature = -1"
    yield lambda p, o, b: p.read(["1"], []), "0 groups"
    yield lambda p, o, b: p.read(["1"], [[]]), r"\[0\]"
    yield lambda p, o, b: cg.score(o, ["3"], "final_answer"), "1 answers for 2 prompts"
    yield lambda p, o, b: cg.score(o, ["", ""], "final_answer"), "final_answer"
    yield lambda p, o, b: cg.score(o, [1, 2], "finalanswer"), "final_answer"
    yield lambda p, o, b: cg.score(o, [1, 2], lambda *_: None), "NoneType"
    yield lambda p, o, b: cg.score(o, [1, 2], lambda text: True), "called with"
    yield lambda p, o, b: cg.batch(o, [1, 2]), r"\(2,\).*\(2, 4\)"
    yield lambda p, o, b: cg.batch(o, np.full((2, 4), np.nan)), "8 of 8"
    yield lambda p, o, b: cg.batch(o, np.eye(2, 4), advantage="grop"), "grop"
    yield lambda p, o, b: cg.batch(o, np.eye(2, 4), aggregation="mean"), "mean"
    yield lambda p, o, b: cg.loss("ce_gpo", p.logprobs(o), b), "ce_gppo"
    yield lambda p, o, b: cg.loss("ce_gppo", p.logprobs(o), b, beta_lo=1), "beta_lo"
    yield lambda p, o, b: cg.loss("ce_gppo", p.logprobs(o), b, clip_low=-1), "clip_low"
    yield lambda p, o, b: p.update(b, kl_coef=0.1), "reference"
    yield (
        lambda p, o, b: p.update(cg.batch(o, b.rewards), positive_lm_coef=0.1),
        "correct=",
    )
    other = cg.Stats(*[[np.zeros(3, np.float32)]] * 3)
    yield lambda p, o, b: cg.loss("ce_gppo", other, b), "1 completions with 3 tokens"
    yield lambda p, o, b: p.update(b, old=other), "1 completions with 3 tokens"
    yield lambda p, o, b: cg.gradient_weight("ce_gppo", 1.0, 0.0), "advantage = 0"
    yield lambda p, o, b: cg.surrogate("ce_gppo", [0.0, 1.0], [1.0] * 3), r"\(3,\) for 2"
    yield lambda p, o, b: cg.plot_gradient_weights("ce_gppo", beta_lo=0.5), "beta_lo"
    yield lambda p, o, b: cg.load("no/such/folder"), "no/such/folder"
    yield lambda p, o, b: cg.random_policy(width=10, heads=4), "heads = 4"
    yield lambda p, o, b: cg.open_run("tests"), "config.json"


@pytest.mark.parametrize(("call", "named"), list(wrong_calls()))
def test_wrong_calls_are_one_clear_line(policy, out, batch, call, named):
    with pytest.raises(ValueError, match=named) as error:
        call(policy, out, batch)
    assert "\n" not in str(error.value)


def test_greedy_samples_do_not_train(policy):
    greedy = policy.sample("1", temperature=0, max_tokens=8)
    assert len(set(greedy.texts[0])) == 1
    with pytest.raises(ValueError, match="temperature"):
        cg.batch(greedy, [[0, 1, 0, 1]])
    with pytest.raises(ValueError, match="temperature"):
        policy.logprobs(greedy)
    assert policy.logprobs(greedy, temperature=1.0).logprobs[0].shape == (greedy.lengths[0, 0],)
