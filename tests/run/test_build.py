"""The run of a run: nothing shared that must be apart, and the guard against recompilation."""

import dataclasses
import json

import numpy as np
import pytest
import tiny_recipe
from altered_run import altered
from transformers import AddedToken

from cegppo_jax.data.ends import Ends
from cegppo_jax.data.tasks.table import TASKS
from cegppo_jax.data.tokenizer import build_character_tokenizer
from cegppo_jax.keys import KeyPurpose, purpose_key
from cegppo_jax.learner.imitation import solution_sequence
from cegppo_jax.losses.settings import built_in_numbers
from cegppo_jax.run.build import build_run
from cegppo_jax.run.saved_model import save_model_description
from cegppo_jax.run.settings import read_settings
from cegppo_jax.steering.betas import Betas
from cegppo_jax.steering.guard import GuardAction
from cegppo_jax.steering.steer import Steering


def test_training_warm_start_and_held_out_problems_are_apart(tiny_run):
    held_out = {prompt.problem.problem for prompt in tiny_run.evaluator.prompts}
    assert len(held_out) == 8
    trained = [p.problem.problem for p in tiny_run.source.stream.take(0, 500).prompts]
    imitated = [p.problem.problem for p in tiny_run.imitator.stream.take(0, 500).prompts]
    assert held_out.isdisjoint(trained)
    assert held_out.isdisjoint(imitated)
    assert trained != imitated  # problems of one side, in an order of their own


def test_a_warm_started_run_holds_the_longest_sequences(tiny_run):
    """Rows of 32 tokens hold two sequences of 5 + 9: 16 an update need 8 rows, 32 need 16."""
    shape = tiny_run.minibatches.shape
    assert (shape.microbatches, shape.rows) == (1, 8)
    assert (tiny_run.imitator.shape.microbatches, tiny_run.imitator.shape.rows) == (2, 8)


def test_knobs_are_the_loss_s_numbers_and_what_steering_says(tiny_run):
    """Each from the setting of its name, but for the three that steering moves."""
    names = {*built_in_numbers(), "entropy_coef"}
    steered = {"beta_low": 0.375, "beta_high": 1.75, "entropy_coef": 0.0625}
    numbered = {name: 3.0 + place for place, name in enumerate(sorted(names - steered.keys()))}
    fractions = {"covariance_fraction": 0.25, "preserve_probability": 0.5}
    fractions |= {"top_entropy_fraction": 0.75, "covariance_low": 1.25}
    values = numbered | fractions
    loss = dataclasses.replace(tiny_run.settings.loss, kl_place="loss").with_numbers(**values)
    run = dataclasses.replace(tiny_run, settings=dataclasses.replace(tiny_run.settings, loss=loss))
    betas = Betas(steered["beta_low"], steered["beta_high"])
    knobs = run.knobs(Steering(betas, steered["entropy_coef"], GuardAction.NONE))
    assert {name: float(getattr(knobs, name)) for name in names} == values | steered
    assert {type(getattr(knobs, name)) for name in names} == {np.float32}  # traced: one type


def test_the_paper_s_numbers_are_the_tiny_run_s(tiny_run):
    betas = tiny_run.settings.base_betas
    knobs = tiny_run.knobs(Steering(betas, 0.0, GuardAction.NONE))
    expected = {"clip_low": 0.2, "clip_high": 0.2, "beta_low": 0.5, "beta_high": 1.0}
    for name, value in expected.items():
        assert float(getattr(knobs, name)) == pytest.approx(value)


def test_keys_differ_by_purpose_and_seed(tiny_run):
    keys = [str(purpose_key(seed, purpose)) for seed in (0, 1) for purpose in KeyPurpose]
    own = tiny_run.source.key, tiny_run.evaluator.key
    assert [str(key) for key in own] == [keys[KeyPurpose.ROLLOUT], keys[KeyPurpose.EVALUATION]]
    assert len(set(keys)) == 2 * len(KeyPurpose)


@pytest.mark.parametrize(
    ("counts", "excess"),
    [
        ({"decode": 2, "prefill": 1, "admit": 1}, None),
        ({"decode": 3}, r"\{'decode': 3\} \(allowed: 1 each, decode 2\)"),
        ({"decode": 2, "prefill": 2}, r"\{'prefill': 2\}"),
    ],
)
def test_a_second_compilation_of_a_hot_function_is_an_error(counts, excess, tiny_run):
    """The tiny recipe evaluates as it trains, and reads the cache at two lengths: two programs."""

    class Counted:
        def compile_counts(self):
            return dict(counts)

    run = altered(tiny_run, sampler=Counted())
    if excess is None:
        run.check_compiled_once()
    else:
        with pytest.raises(RuntimeError, match=f"recompiled during training: {excess}"):
            run.check_compiled_once()


@pytest.mark.parametrize("named", [(), ("<|stop|>",)])
def test_the_token_that_closes_a_turn_ends_completions_and_solutions(named, tmp_path):
    """It reaches the sampler, the solutions that are imitated, and what export reads."""
    tokenizer = build_character_tokenizer(TASKS["chained_arithmetic"].alphabet)
    special = [AddedToken(one, special=True) for one in ("<|eot_id|>", "<|stop|>")]
    tokenizer.add_tokens(special)
    own = str(tokenizer.chat_template)
    tokenizer.chat_template = own.replace("+ '<|end|>'", "+ '<|eot_id|>'")
    assert tokenizer.chat_template != own
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    turn, stop = tokenizer.convert_tokens_to_ids(["<|eot_id|>", "<|stop|>"])
    config = tiny_recipe.get_config()
    config.problems.tokenizer = str(tmp_path / "tokenizer")
    config.problems.ending_tokens = named
    run = build_run(read_settings(config))
    run.actor.scorer.close()
    ends, taught = ((1, turn, stop), stop) if named else ((1, turn), turn)
    assert run.ends == Ends(ends, taught)
    [prompt] = run.imitator.stream.take(0, 1).prompts
    sequence = solution_sequence(prompt, run.problems.tokenizer, run.ends.taught, 9)
    assert sequence.completion_tokens[-1] == taught
    save_model_description(tmp_path, run.model, run.ends.ids)
    described = json.loads((tmp_path / "model" / "generation_config.json").read_text())
    assert described["eos_token_id"] == list(ends)
