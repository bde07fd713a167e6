"""The parts of a run: nothing shared that must be apart, and the guard against recompilation."""

import dataclasses

import pytest

from cegppo_jax.parts import KeyPurpose


def test_training_warm_start_and_held_out_problems_are_apart(tiny_parts):
    held_out = {prompt.problem.problem for prompt in tiny_parts.held_out_prompts}
    assert len(held_out) == 8
    trained = [p.problem.problem for p in tiny_parts.stream.take(0, 500).prompts]
    imitated = [p.problem.problem for p in tiny_parts.supervised_stream.take(0, 500).prompts]
    assert held_out.isdisjoint(trained)
    assert held_out.isdisjoint(imitated)
    assert trained != imitated  # problems of one side, in an order of their own


def test_a_warm_started_run_holds_the_longest_sequences(tiny_parts):
    """Rows of 32 tokens hold two sequences of 5 + 9: 16 an update need 8 rows, 32 need 16."""
    assert (tiny_parts.shape.microbatches, tiny_parts.shape.rows) == (1, 8)
    assert (tiny_parts.supervised_shape.microbatches, tiny_parts.supervised_shape.rows) == (2, 8)


def test_knobs_are_the_paper_s_numbers(tiny_parts):
    knobs = tiny_parts.knobs()
    loss = tiny_parts.settings.loss
    for name in ("clip_low", "clip_high", "beta_low", "beta_high"):
        assert float(getattr(knobs, name)) == pytest.approx(getattr(loss, name))


def test_keys_differ_by_purpose_and_seed(tiny_parts):
    other = dataclasses.replace(
        tiny_parts, settings=dataclasses.replace(tiny_parts.settings, seed=1)
    )
    keys = [str(parts.key(p)) for parts in (tiny_parts, other) for p in KeyPurpose]
    assert len(set(keys)) == 2 * len(KeyPurpose)


@pytest.mark.parametrize(
    ("counts", "excess"),
    [
        ({"decode": 2, "prefill": 1, "admit": 1}, None),
        ({"decode": 3}, r"\{'decode': 3\} \(allowed: 1 each, decode 2\)"),
        ({"decode": 2, "prefill": 2}, r"\{'prefill': 2\}"),
    ],
)
def test_a_second_compilation_of_a_hot_function_is_an_error(counts, excess, tiny_parts):
    """The tiny recipe evaluates as it trains, and reads the cache at two lengths: two programs."""

    class Counted:
        def compile_counts(self):
            return dict(counts)

    parts = dataclasses.replace(tiny_parts, sampler=Counted())
    if excess is None:
        parts.check_compiled_once()
    else:
        with pytest.raises(RuntimeError, match=f"recompiled during training: {excess}"):
            parts.check_compiled_once()
