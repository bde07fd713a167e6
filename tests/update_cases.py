"""What the tests of the update share: sequences, what is known of them before an update, and one
update of a small model.
"""

import functools

import jax
import numpy as np

from cegppo_jax.learner.forward import ForwardSettings
from cegppo_jax.learner.optimizer import OptimizerSettings, make_optimizer
from cegppo_jax.learner.train_state import TrainState, state_shardings
from cegppo_jax.learner.update import BatchNeeds, make_logprobs, make_update
from cegppo_jax.losses.aggregation import AggregationSettings, loss_weights, positive_lm_weights
from cegppo_jax.losses.contract import Knobs
from cegppo_jax.losses.policy_loss import OldStatistics, make_policy_loss
from cegppo_jax.losses.surrogates import SURROGATES
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import init_params
from cegppo_jax.packing import PackedShape, TrainingSequence, pack, with_targets
from cegppo_jax.sharding import MeshShape, make_mesh

# The smallest model that two shards each of rows, width and heads divide: it compiles fastest.
TINY_MODEL = ModelConfig(
    vocab_size=32,
    width=16,
    layers=1,
    heads=4,
    kv_heads=2,
    head_size=4,
    mlp_width=24,
    rope_theta=10_000.0,
    norm_epsilon=1e-6,
    tied_embeddings=True,
)

# Adam with a huge epsilon moves by rate * gradient / epsilon: parameters then show gradients, where
# the usual one shows little more than their signs.
RATE = 1e3
LINEAR = OptimizerSettings(
    learning_rate=RATE,
    warmup_steps=0,
    warmup_starts_at_zero=False,
    schedule="constant",
    decay_steps=0,
    beta1=0.0,
    beta2=0.0,
    epsilon=RATE,
    weight_decay=0.0,
    decay_norms_and_embeddings=False,
    max_grad_norm=float("inf"),
)
FORWARD = ForwardSettings(
    dtype="float32",
    rematerialise="full",
    scan_unroll=1,
    temperature=1.0,
    logprob_chunk_tokens=16,
    differentiate_entropy=False,
    attention="xla",
)
# Numbers with which each method does on these sequences what sets it apart.
KNOBS = Knobs(
    **{
        name: np.float32(value)
        for name, value in dict(
            clip_low=0.2,
            clip_high=0.2,
            beta_low=0.5,
            beta_high=1.0,
            cispo_cap=1.3,
            aspo_cap=1.4,
            dppo_cap=1.5,
            divergence_low=0.004,
            divergence_high=0.004,
            gate_positive=1.0,
            gate_negative=1.5,
            decay_low=1.0,
            decay_high=2.0,
            covariance_fraction=0.2,
            covariance_low=0.1,
            covariance_high=3.0,
            covariance_kl_coef=1.0,
            dual_clip=1.1,
            preserve_probability=0.5,
            entropy_ratio_low=0.05,
            entropy_ratio_high=0.05,
            top_entropy_fraction=0.3,
            kl_coef=0.0,
            entropy_coef=0.0,
            positive_lm_coef=0.0,
        ).items()
    }
)
SHAPE = PackedShape(microbatches=4, rows=8, row_tokens=32)
DRAWS_SEED = 11
GIVEN = np.False_  # of `is_old`: the old statistics are those that are given


def knobs_with(**changes):
    return KNOBS.replace(**{n: np.float32(value) for n, value in changes.items()})


def make_sequences():
    """-> 24 sequences, numbered by draw_id, and their advantages [24]."""
    random = np.random.default_rng(5)
    made, advantages = [], []
    for index in range(24):
        prompt = random.integers(2, 32, size=random.integers(1, 7)).tolist()
        completion = random.integers(2, 32, size=random.integers(1, 14))
        advantages.append(random.normal())
        made.append(TrainingSequence(prompt, completion, draw_id=index))
    return tuple(made), np.asarray(advantages, np.float32)


SEQUENCES, ADVANTAGES = make_sequences()
LENGTHS = np.array([len(one.completion_tokens) for one in SEQUENCES])
CORRECT = ADVANTAGES > 0
# By draw_id, one a completion token.
CORRECTIONS = [
    (1 + 0.5 * np.sin(np.arange(n) + k)).astype(np.float32) for k, n in enumerate(LENGTHS)
]


@functools.cache
def tiny_params():
    """Twice as large as at initialisation: distributions far from uniform."""
    with jax.set_mesh(make_mesh(MeshShape(1, 1, 1), jax.devices()[:1])):
        params = init_params(TINY_MODEL, jax.random.key(1))
        return jax.tree.map(lambda leaf: 2 * np.asarray(leaf), params)


def aggregation(name="token_mean"):
    return AggregationSettings(name, max_completion_tokens=16, emulated_microbatch_sequences=5)


def batch_of(
    sequences=SEQUENCES,
    shape=SHAPE,
    *,
    advantages=ADVANTAGES,
    weights="token_mean",
    share_prompts=False,
):
    """Sequences -> packed, with advantages [24] by draw_id, under an aggregation; without LM term
    and corrections.
    """
    ids = [one.draw_id for one in sequences]
    lengths = LENGTHS[ids]
    return with_targets(
        pack(sequences, shape, share_prompts=share_prompts),
        advantages=advantages[ids],
        loss_weights=loss_weights(lengths, aggregation(weights)),
    )


def full_batch_of(sequences=SEQUENCES, shape=SHAPE, weights="token_mean"):
    """The same with LM weights and corrections."""
    ids = [one.draw_id for one in sequences]
    lengths = LENGTHS[ids]
    return with_targets(
        pack(sequences, shape),
        advantages=ADVANTAGES[ids],
        loss_weights=loss_weights(lengths, aggregation(weights)),
        lm_weights=positive_lm_weights(lengths, CORRECT[ids], aggregation(weights)),
        corrections=[CORRECTIONS[i] for i in ids],
    )


def compiled(function, *arguments):
    """A jitted function's program, as tests/compiling.py has programs compiled."""
    return function.lower(*arguments).compile()


def run(function, *arguments):
    """A jitted function's result, without an entry in its cache."""
    return compiled(function, *arguments)(*arguments)


def state_on(mesh, model, params, optimizer=LINEAR, updates=0):
    """A state with the given parameters, laid out on the mesh; init_state would compile."""
    shapes = jax.eval_shape(make_optimizer(optimizer).init, params)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    own = jax.tree.map(np.array, params)  # copies: the update donates its state
    state = TrainState(own, zeros, step=np.int32(0), updates=np.int32(updates))
    return jax.device_put(state, state_shardings(mesh, model, optimizer))


def own_statistics(batch, mesh, model, params, forward=FORWARD):
    """-> the policy's own log-probabilities and entropies, [U, R, C] of NumPy."""
    layout = state_shardings(mesh, model, LINEAR).params
    placed = jax.device_put(jax.tree.map(np.array, params), layout)
    return jax.device_get(run(make_logprobs(mesh, model, forward), placed, batch))


def old_statistics_of(batch, mesh, model, params):
    """The policy's own, moved: log-probs by up to 0.6 a token, so that both edges are passed,
    entropies by a tenth, the reference's log-probs by 0.3. Functions of the token's place in its
    sequence and of the sequence's number, so that every packing and order of the same sequences
    gets the same.
    """
    logprobs, entropy = own_statistics(batch, mesh, model, params)
    place = 7.0 * batch.draw_ids + 3.0 * batch.positions
    mask = batch.completion_mask
    return OldStatistics(
        (logprobs + 0.6 * np.sin(place) * mask).astype(np.float32),
        (entropy * (1 + 0.1 * np.sin(1.7 * place))).astype(np.float32),
        (logprobs + 0.3 * np.cos(2.3 * place) * mask).astype(np.float32),
    )


def updated(
    mesh,
    model,
    params,
    batch,
    *,
    old,
    method=SURROGATES["ce_gppo"],
    knobs=KNOBS,
    forward=FORWARD,
    kl_estimator=None,
    updates=0,
    seed=DRAWS_SEED,
    loss=None,
    run=run,
    is_old=GIVEN,
):
    """-> (parameters after one update, metrics). A `loss` of one's own replaces the method's."""
    state = state_on(mesh, model, params, updates=updates)
    loss = loss or make_policy_loss(method, kl_estimator, "half")
    needs = BatchNeeds(method.selections, method.draws, seed)
    update = make_update(mesh, model, forward, LINEAR, loss, needs)
    state, reductions, _ = run(update, state, batch, old, knobs, is_old)
    values = {name: r.result() for name, r in jax.device_get(reductions).items()}
    return jax.device_get(state.params), values


def moves_of(params, start):
    """Parameters after and before -> their difference, leaf by leaf."""
    return jax.tree.map(lambda new, old: np.asarray(new) - np.asarray(old), params, start)


def largest(tree):
    return max(np.abs(leaf).max() for leaf in jax.tree.leaves(tree))


def assert_same_moves(first, second, atol=2e-5):
    """Equal gradients, to rounding of the size of the largest."""
    size = largest(first)
    assert size > 1e-2
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=atol * max(1, size)), first, second
    )


def assert_same_update(first, second, params):
    """Equal metrics, and equal gradients to float32 rounding of their size."""
    assert first[1].keys() == second[1].keys()
    for name, value in first[1].items():
        np.testing.assert_allclose(second[1][name], value, rtol=2e-4, atol=2e-6, err_msg=name)
    assert_same_moves(*(moves_of(after, params) for after, _ in (first, second)))
