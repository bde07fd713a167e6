"""Mixtures: exact proportions, each member in its own order, everything from (seed, position)."""

from collections import Counter
from fractions import Fraction

import pytest

from cegppo_jax.data.mixture import MixtureSource, block_counts, shuffled_block
from cegppo_jax.data.prompts import PromptStream
from cegppo_jax.data.sources import FiniteSource, GeneratedSource
from cegppo_jax.data.tasks.table import TASKS, Split
from cegppo_jax.data.tokenizer import build_character_tokenizer
from cegppo_jax.types import Problem


def named(name, n):
    return FiniteSource([Problem(f"{name}{i}", f"{i}+{i}", "0", name) for i in range(n)])


def mixture(*weights, sizes=(5, 3, 4)):
    members = tuple(named("abc"[i], sizes[i]) for i in range(len(weights)))
    return MixtureSource(members, tuple(Fraction(weight) for weight in weights))


CHAIN = GeneratedSource(
    task=TASKS["chained_arithmetic"], split=Split.TRAIN, min_steps=1, max_steps=1
)


@pytest.mark.parametrize(
    ("weights", "counts"),
    [
        (("1", "1"), (1, 1)),
        (("0.7", "0.3"), (7, 3)),
        (("2", "4", "6"), (1, 2, 3)),
        (("0.999", "0.001"), (999, 1)),
        (("5",), (1,)),
        # too long a block for exact proportions: 333.3 and 333.4 of 1000
        (("0.3333", "0.3333", "0.3334"), (333, 333, 334)),
        (("1", "1023"), None),
        (("1", "0"), None),
        (("1", "-1"), None),
    ],
)
def test_block_counts(weights, counts):
    weights = tuple(Fraction(weight) for weight in weights)
    if counts is None:
        with pytest.raises(ValueError, match=r"weights 1.0, [-0-9.]+: "):
            block_counts(weights)
    else:
        assert block_counts(weights) == counts


def test_proportions_are_exact_in_every_block():
    source = mixture("0.5", "0.3", "0.2")
    assert source.counts == (5, 3, 2)
    for seed in (0, 1):
        drawn = [source.problem_at(seed, position).source for position in range(1000)]
        for start in range(0, 1000, 10):
            assert Counter(drawn[start : start + 10]) == {"a": 5, "b": 3, "c": 2}


def test_each_member_gives_its_own_sequence_in_its_own_order():
    """The mixture takes from each member what the member alone would give, one after the other."""
    source = mixture("0.5", "0.3", "0.2")
    drawn = [source.problem_at(7, position) for position in range(600)]
    for member in source.members:
        name = member.problems[0].source
        own = [problem for problem in drawn if problem.source == name]
        assert own == [member.problem_at(7, i) for i in range(len(own))]
        size = len(member.problems)
        for start in range(0, len(own) - size, size):
            assert set(own[start : start + size]) == set(member.problems)


def test_pure_function_of_seed_and_position():
    source = mixture("3", "1")
    forward = [source.problem_at(2, position) for position in range(200)]
    shuffled_block.cache_clear()
    backward = [mixture("3", "1").problem_at(2, position) for position in reversed(range(200))]
    assert backward[::-1] == forward
    assert forward != [source.problem_at(3, position) for position in range(200)]
    far = 10**15
    assert source.problem_at(2, far) == mixture("3", "1").problem_at(2, far)


def test_order_is_the_same_in_every_version():
    """A changed value here means that runs resumed from older checkpoints see other problems."""
    source = mixture("2", "1")
    drawn = [source.problem_at(0, position).id for position in range(9)]
    # The first block: epoch_order(0, 0, 3) is 0, 2, 1, so that it is a, b, a; and a's own order
    # begins with 0, 4, b's with 0.
    assert drawn == ["a0", "b0", "a4", "b2", "a2", "a3", "a1", "b1", "a3"]


def test_the_places_in_a_block_are_uniform():
    """The one b of 4 positions, over 4,000 blocks: 1,000 expected each, deviation 27."""
    firsts = Counter(shuffled_block(0, block, (3, 1)).index((1, 0)) for block in range(4000))
    assert set(firsts) == set(range(4))
    assert all(860 < count < 1140 for count in firsts.values())


def test_a_generated_member():
    source = MixtureSource((named("a", 3), CHAIN), (Fraction(1), Fraction(2)))
    drawn = [source.problem_at(4, position) for position in range(90)]
    generated = [problem for problem in drawn if problem.source != "a"]
    assert generated == [CHAIN.problem_at(4, i) for i in range(60)]
    assert [p.id for p in source.known_problems] == ["a0", "a1", "a2"]
    assert len(source.problems_to_check(0)) == 3 + 256


def stream(source, **changes):
    fields = {"seed": 0, "system_prompt": None, "long_prompt_policy": "skip"}
    tokenizer = build_character_tokenizer("0123456789+-*")
    return PromptStream(source=source, tokenizer=tokenizer, **(fields | changes))


def test_resume_from_one_integer_with_skipped_prompts():
    source = mixture("0.6", "0.4", sizes=(12, 3, 0))  # a10 and a11 are longer
    whole = stream(source, max_prompt_tokens=5).take(0, 60)
    assert whole.skipped > 0
    for first in (1, 17, 42):
        before = stream(source, max_prompt_tokens=5).take(0, first)
        after = stream(source, max_prompt_tokens=5).take(before.next_position, 60 - first)
        assert before.prompts + after.prompts == whole.prompts


def test_patience_outlasts_a_rare_member():
    """Only one problem of the rarest member fits: it is found from wherever one starts."""
    long = FiniteSource([Problem(f"l{i}", "7" * 9, "0", "long") for i in range(3)])
    rare = FiniteSource([Problem(f"r{i}", "7" * (9 if i else 3), "0", "rare") for i in range(4)])
    source = MixtureSource((long, rare), (Fraction(9), Fraction(1)))
    for position in range(0, 100, 7):
        taken = stream(source, max_prompt_tokens=6).take(position, 2)
        assert [p.problem.id for p in taken.prompts] == ["r0", "r0"]
    hopeless = MixtureSource((long, long), (Fraction(9), Fraction(1)))
    with pytest.raises(ValueError, match=r"\d+ prompts .* max_prompt_tokens"):
        stream(hopeless, max_prompt_tokens=6).take(0, 1)


def test_members_and_weights_belong_together():
    with pytest.raises(ValueError, match=r"1 members .* 2 weights"):
        MixtureSource((named("a", 1),), (Fraction(1), Fraction(1)))
    with pytest.raises(ValueError, match=r"0 members .* 0 weights"):
        MixtureSource((), ())
