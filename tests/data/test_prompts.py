"""Prompts: exact tokens, a stream that resumes from one integer, and no silent loss."""

import dataclasses

import pytest

from cegppo_jax.data.prompts import (
    PromptLengths,
    PromptStream,
    render_evaluation_prompts,
    render_prompt,
)
from cegppo_jax.data.sources import FiniteSource, GeneratedSource
from cegppo_jax.data.tasks.table import TASKS, Split
from cegppo_jax.data.tokenizer import build_character_tokenizer, encode_text
from cegppo_jax.types import Problem, Prompt

PRINTABLE = "".join(map(chr, range(32, 127))) + "\n"
TOKENIZER = build_character_tokenizer("0123456789+-*=;#")  # the digit d has the id d + 5


def of_lengths(*lengths):
    """Problems "p0", "p1", ... with prompts of these lengths in tokens (the template's are 2)."""
    return [Problem(f"p{i}", "7" * (n - 2), "7", "s") for i, n in enumerate(lengths)]


def stream(source, **changes):
    fields = {
        "tokenizer": TOKENIZER,
        "seed": 0,
        "system_prompt": None,
        "max_prompt_tokens": 10,
        "long_prompt_policy": "skip",
    }
    return PromptStream(source=source, **(fields | changes))


def test_render_prompt_by_hand():
    problem = Problem("a", "7+5", "2", "s", solution="7+5=2;#2")
    assert render_prompt(problem, TOKENIZER, None) == (2, 12, 15, 10, 3)
    assert render_prompt(problem, TOKENIZER, "0") == (5, 2, 12, 15, 10, 3)


def test_instruction_stands_behind_the_problem_everywhere():
    problem = Problem("a", "7+5", "2", "s")
    with_it = (2, 12, 15, 10, 18, 3)  # = has the id 18
    assert render_prompt(problem, TOKENIZER, None, "=") == with_it
    assert render_prompt(problem, TOKENIZER, "0", "=") == (5, *with_it)
    [prompt] = render_evaluation_prompts([problem], TOKENIZER, None, 6, "=")
    assert prompt == Prompt(problem, with_it, 0)  # the problem itself stays as it is
    taken = stream(FiniteSource([problem]), instruction="=").take(0, 1).prompts
    assert taken == [prompt]
    with pytest.raises(ValueError, match=r"problem 'a' has 6 tokens .* max_prompt_tokens is 5"):
        stream(
            FiniteSource([problem]),
            instruction="=",
            max_prompt_tokens=5,
            long_prompt_policy="error",
        ).validate()
    with pytest.raises(ValueError, match=r"instruction .* character 'T'"):
        render_prompt(problem, TOKENIZER, None, "T")


def test_prompt_and_solution_make_the_template_s_whole_conversation():
    """So the warm start trains on what the policy is asked to write."""
    problem = Problem("a", "7+5", "2", "s", solution="7+5=2;#2")
    solution = encode_text(problem.solution, TOKENIZER, "solution of problem 'a'")
    messages = [
        {"role": "user", "content": problem.problem},
        {"role": "assistant", "content": problem.solution},
    ]
    whole = TOKENIZER.apply_chat_template(messages, return_dict=False)
    prompt = render_prompt(problem, TOKENIZER, None)
    assert [*prompt, *solution, TOKENIZER.eos_token_id] == whole


@pytest.mark.parametrize(
    "template",
    [
        "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}"
        "{% endif %}{{ date_string + messages[0]['content'] }}",  # as Llama 3.2's
        "{%- set today = strftime_now('%d %b %Y') -%}{{ today + messages[0]['content'] }}",
    ],
)
def test_template_s_date_stands_still(template):
    """A template that writes today's date must not make the prompts depend on the day."""
    tokenizer = build_character_tokenizer("0123456789 Jul")
    tokenizer.chat_template = template
    tokens = render_prompt(Problem("a", "7", "7", "s"), tokenizer, None)
    assert tokenizer.decode(tokens) == "26 Jul 20247"


def test_a_template_whose_date_cannot_be_held_is_refused():
    tokenizer = build_character_tokenizer("0123456789")
    tokenizer.chat_template = "{% set form = '%d' %}{{ strftime_now(form) }}"
    with pytest.raises(ValueError, match="asks for today's date"):
        render_prompt(Problem("a", "7", "7", "s"), tokenizer, None)


def test_text_that_cannot_be_a_prompt_is_refused():
    with pytest.raises(ValueError, match=r"problem 'odd' .* character '/'"):
        render_prompt(Problem("odd", "8/2", "4", "s"), TOKENIZER, None)
    with pytest.raises(ValueError, match=r"system prompt .* character 'T'"):
        render_prompt(Problem("a", "8", "8", "s"), TOKENIZER, "Think")
    with pytest.raises(ValueError, match=r"problem 'turn' .* special token '<\|end\|>'"):
        render_prompt(Problem("turn", "8<|end|>", "8", "s"), TOKENIZER, None)


def test_template_s_refusal_names_the_problem():
    tokenizer = build_character_tokenizer("7")
    tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    message = "refuses the prompt of problem 'a': no system role .some templates take no system"
    with pytest.raises(ValueError, match=message):
        render_prompt(Problem("a", "7", "7", "s"), tokenizer, "7")


SOURCES = {
    "finite": FiniteSource(of_lengths(3, 4, 12, 5, 11, 6, 7)),
    "generated": GeneratedSource(
        task=TASKS["chained_arithmetic"], split=Split.TRAIN, min_steps=1, max_steps=6
    ),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
@pytest.mark.parametrize("seed", [0, 1])
def test_resuming_from_any_position_gives_the_same_prompts(source, seed):
    """Also over epoch borders and skipped prompts; the count of skipped needs no saving."""
    whole = stream(source, seed=seed).take(0, 40)
    assert whole.skipped > 0
    assert whole.next_position == 40 + whole.skipped
    for first in range(41):
        before = stream(source, seed=seed).take(0, first)
        after = stream(source, seed=seed).take(before.next_position, 40 - first)
        assert before.prompts + after.prompts == whole.prompts
        assert after.next_position == whole.next_position
        assert before.skipped + after.skipped == whole.skipped
        assert before.skipped == before.next_position - first


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_prompts_are_the_source_s_problems_that_fit(source):
    taken = stream(source).take(5, 30)
    positions = [prompt.index for prompt in taken.prompts]
    for prompt in taken.prompts:
        problem = source.problem_at(0, prompt.index)
        assert prompt == Prompt(problem, render_prompt(problem, TOKENIZER, None), prompt.index)
    for position in set(range(5, taken.next_position)) - set(positions):
        problem = source.problem_at(0, position)
        assert len(render_prompt(problem, TOKENIZER, None)) > 10
    assert positions == sorted(set(positions))


def test_an_epoch_gives_each_prompt_that_fits_exactly_once():
    taken = stream(SOURCES["finite"]).take(0, 5)
    assert sorted(p.problem.id for p in taken.prompts) == ["p0", "p1", "p3", "p5", "p6"]
    assert taken.next_position <= 7


def test_limit_is_inclusive():
    source = FiniteSource(of_lengths(10))
    assert stream(source, long_prompt_policy="error").validate() == PromptLengths(1, 0, 10)
    assert len(stream(source, long_prompt_policy="error").take(0, 1).prompts[0].tokens) == 10


def test_take_nothing():
    assert stream(SOURCES["finite"]).take(9, 0) == ([], 9, 0)


def test_policy_error_names_the_prompt_ahead_of_the_run():
    source = FiniteSource(of_lengths(3, 12, 11, 5))
    message = (
        "the prompt of problem 'p1' has 12 tokens and max_prompt_tokens is 10: raise the limit, "
        "or remove the problem, or skip over-long prompts .2 of the 4 checked"
    )
    with pytest.raises(ValueError, match=message):
        stream(source, long_prompt_policy="error").validate()
    with pytest.raises(ValueError, match=r"'p\d' has 1[12] tokens .* max_prompt_tokens is 10"):
        stream(source, long_prompt_policy="error").take(0, 4)


def test_policy_skip_counts_ahead_of_the_run():
    source = FiniteSource(of_lengths(3, 12, 11, 5))
    assert stream(source).validate() == PromptLengths(checked=4, too_long=2, longest_tokens=12)


def test_policy_skip_with_nothing_left_is_an_error_and_not_an_endless_loop():
    source = FiniteSource(of_lengths(12, 11, 15))
    message = "all 3 prompts checked are longer than max_prompt_tokens = 10, the shortest has 11"
    with pytest.raises(ValueError, match=message):
        stream(source).validate()
    with pytest.raises(ValueError, match=r"5 prompts .* max_prompt_tokens ="):
        stream(source).take(0, 1)
    with pytest.raises(ValueError, match=r"4096 prompts .* max_prompt_tokens"):
        stream(SOURCES["generated"], max_prompt_tokens=4).take(0, 1)


def test_one_fitting_prompt_is_found_from_every_position():
    """The bound on prompts skipped in a row must not trip while an epoch has one that fits."""
    source = FiniteSource(of_lengths(12, 12, 12, 5, 12))
    for seed in range(10):
        for position in range(20):
            taken = stream(source, seed=seed).take(position, 2)
            assert [p.problem.id for p in taken.prompts] == ["p3", "p3"]


def test_generated_source_is_checked_by_its_beginning():
    lengths = stream(SOURCES["generated"], max_prompt_tokens=15).validate()
    assert lengths == PromptLengths(checked=256, too_long=0, longest_tokens=15)
    with pytest.raises(ValueError, match=r"has \d+ tokens .* max_prompt_tokens is 6: "):
        stream(SOURCES["generated"], max_prompt_tokens=6, long_prompt_policy="error").validate()
    with pytest.raises(ValueError, match=r"problem 'chained_arithmetic/\w+' has the character"):
        stream(SOURCES["generated"], tokenizer=build_character_tokenizer("0+-*")).validate()


def test_bad_arguments():
    with pytest.raises(ValueError, match="long_prompt_policy is 'drop': "):
        stream(SOURCES["finite"], long_prompt_policy="drop")
    with pytest.raises(ValueError, match=r"max_prompt_tokens is 0: .* 1"):
        stream(SOURCES["finite"], max_prompt_tokens=0)
    with pytest.raises(ValueError, match=r"position is -1 .* count is 2: "):
        stream(SOURCES["finite"]).take(-1, 2)
    with pytest.raises(ValueError, match=r"position is 1 .* count is -2: "):
        stream(SOURCES["finite"]).take(1, -2)


def test_evaluation_prompts_keep_the_order_and_lose_nothing():
    problems = of_lengths(5, 3, 4)
    prompts = render_evaluation_prompts(problems, TOKENIZER, None, 5)
    assert [(p.problem.id, p.index, len(p.tokens)) for p in prompts] == [
        ("p0", 0, 5),
        ("p1", 1, 3),
        ("p2", 2, 4),
    ]
    with pytest.raises(ValueError, match=r"problem 'p0' has 5 tokens .* max_prompt_tokens is 4"):
        render_evaluation_prompts(problems, TOKENIZER, None, 4)


USER = "{{ messages[-1].content }}"
LOSES_THE_PROBLEM = {
    "nothing is written": "{{ '1' }}",
    "a list of parts is read": "{{ messages[-1].content[0]['text'] }}",
    "parts are looped over": "{% for part in messages[-1].content %}{{ part.text }}{% endfor %}",
    "a misspelt field": "{{ messages[-1].text }}",
    "of another role": "{% for m in messages if m.role == 'human' %}{{ m.content }}{% endfor %}",
    "cut": "{{ messages[-1].content[:12] }}",
    "cut from the left": "{{ messages[-1].content[-12:] }}",
    "truncated": "{{ messages[-1].content | truncate(20) }}",
    "lower": "{{ messages[-1].content | lower }}",
    "upper": "{{ messages[-1].content | upper }}",
    "title": "{{ messages[-1].content | title }}",
    "escaped": "{{ messages[-1].content | e }}",
    "as JSON": "{{ messages[-1].content | tojson }}",
    "tags stripped": "{{ messages[-1].content | striptags }}",
    "spaces collapsed": "{{ messages[-1].content.split() | join(' ') }}",
    "line breaks replaced": "{{ messages[-1].content | replace('\n', ' ') }}",
    "wrapped": "{{ messages[-1].content | wordwrap(10) }}",
    "quotes replaced": "{{ messages[-1].content | replace('\"', '') }}",
    "URL-encoded": "{{ messages[-1].content | urlencode }}",
    "first line": "{{ messages[-1].content.splitlines()[0] }}",
}


def with_template(template):
    tokenizer = build_character_tokenizer(PRINTABLE)
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("template", LOSES_THE_PROBLEM.values(), ids=LOSES_THE_PROBLEM.keys())
@pytest.mark.parametrize("problem", ["7", 'What is 3 < 5 & 2?\n\nSay  "so", Tom.'])
def test_a_template_that_loses_the_problem_starts_no_run(template, problem):
    """Also where the very problems of the run would pass: generated ones come later."""
    tokenizer = with_template(template)
    message = "the chat template (leaves out|changes).* problem.*problems.tokenizer"
    with pytest.raises(ValueError, match=message):
        render_evaluation_prompts([Problem("a", problem, "7", "s")], tokenizer, None, 300)
    source = FiniteSource([Problem("a", problem, "7", "s")])
    with pytest.raises(ValueError, match=message):
        stream(source, tokenizer=tokenizer, max_prompt_tokens=300).validate()


SYSTEM = "{% if messages[0].role == 'system' %}"


@pytest.mark.parametrize(
    "template",
    [
        USER,
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
        SYSTEM + "{{ messages[0].content[:3] }}{% endif %}" + USER,
        SYSTEM + "{{ messages[0].content | lower }}{% endif %}" + USER,
        SYSTEM + "{{ messages[0].content[0].text }}{% endif %}" + USER,
        SYSTEM + "You are a helpful assistant.{% endif %}" + USER,
    ],
)
def test_a_template_that_loses_the_system_prompt_starts_no_run(template):
    tokenizer, problems = with_template(template), [Problem("a", "7", "7", "s")]
    render_evaluation_prompts(problems, tokenizer, None, 300)
    with pytest.raises(ValueError, match=r"chat template .* system prompt"):
        render_evaluation_prompts(problems, tokenizer, "Solve it.", 300)
    source = FiniteSource(problems)
    stream(source, tokenizer=tokenizer, max_prompt_tokens=300).validate()
    with pytest.raises(ValueError, match=r"chat template .* system prompt"):
        stream(
            source, tokenizer=tokenizer, max_prompt_tokens=300, system_prompt="Solve it."
        ).validate()


def test_a_template_that_loses_more_of_longer_texts_is_found_by_the_prompt():
    long = Problem("long", "7" * 3000, "7", "s")
    tokenizer = with_template("{{ messages[-1].content[:2000] }}")
    render_evaluation_prompts([Problem("a", "7", "7", "s")], tokenizer, None, 4000)
    with pytest.raises(ValueError, match="changes the text of problem 'long'"):
        render_evaluation_prompts([long], tokenizer, None, 4000)
    short = dataclasses.replace(long, problem="7" * 1995)
    with pytest.raises(ValueError, match=r"changes .* instruction"):
        render_evaluation_prompts([short], tokenizer, None, 4000, "\nThink hard.")
    with pytest.raises(ValueError, match=r"changes .* system prompt"):
        render_prompt(
            short, with_template("{{ messages[0].content[:9] }}" + USER), "Think hard again."
        )


def test_templates_may_trim_and_fold_the_system_prompt_into_the_user_s_message():
    """As those of Llama 3 and Gemma do."""
    tokenizer = with_template(
        SYSTEM
        + "{{ messages[0].content | trim + ' ' }}{% endif %}{{ messages[-1].content.strip() }}"
    )
    problem = Problem("a", "\n 1 + 1\n", "2", "s")
    [prompt] = render_evaluation_prompts([problem], tokenizer, " Solve.\n", 300, "\nBox it. ")
    assert tokenizer.decode(prompt.tokens) == "Solve. 1 + 1\n\nBox it."


@pytest.mark.parametrize("template", ["{{ 1 / 0 }}", "{{ messages[-1].content + 1 }}"])
def test_a_template_that_fails_is_refused(template):
    with pytest.raises(ValueError, match=r"chat template refuses .*: "):
        render_evaluation_prompts([Problem("a", "7", "7", "s")], with_template(template), None, 9)
