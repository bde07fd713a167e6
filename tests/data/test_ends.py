"""Ends of a completion: from every place that names one, above all the chat template."""

import numpy as np
import pytest
from transformers import AddedToken

from cegppo_jax.data.ends import Ends, describe_ends, find_ends, turn_closing
from cegppo_jax.data.tokenizer import build_character_tokenizer, completion_text
from cegppo_jax.types import Completion, StopReason

EOS = 1  # <|end|>
TURN = "{% for m in messages %}{{ '<|user|>' if m.role == 'user' else '<|assistant|>' }}"


def tokenizer(template, tokens=("<|eot_id|>",), special=True):
    """A character tokenizer with 36 ids, further tokens behind them, and a chat template."""
    made = build_character_tokenizer("0123456789 </answer>[INST]\n")
    made.add_tokens([AddedToken(one, special=special, normalized=False) for one in tokens])
    made.chat_template = template
    return made


def id_of(text, made):
    return made.convert_tokens_to_ids(text)


CLOSED = {
    "by a special token": TURN + "{{ m.content }}<|eot_id|>{% endfor %}",
    "with a line break behind": TURN + "{{ m.content + '<|eot_id|>\n' }}{% endfor %}",
    "with a space before": TURN + "{{ m.content + ' <|eot_id|>' }}{% endfor %}",
    "with text before": TURN + "{{ m.content + '</answer><|eot_id|>' }}{% endfor %}",
    "only the assistant's turn": TURN
    + "{{ m.content }}{% if m.role == 'assistant' %}<|eot_id|>{% endif %}{% endfor %}",
    "only where another turn follows": TURN
    + "{{ m.content }}{% if not loop.last %}<|eot_id|>{% endif %}{% endfor %}",
    "and the next turn is opened unasked": TURN
    + "{{ m.content }}<|eot_id|>{% endfor %}<|assistant|>",
    "behind a trimmed content": TURN + "{{ m.content | trim }}<|eot_id|>{% endfor %}",
    "beside the text's end": TURN + "{{ m.content }}<|eot_id|><|end|>{% endfor %}",
}


@pytest.mark.parametrize("template", CLOSED.values(), ids=CLOSED.keys())
@pytest.mark.parametrize("special", [True, False])
def test_the_token_that_closes_a_turn_is_an_end_and_the_one_taught(template, special):
    made = tokenizer(template, special=special)
    if not special and any(
        one in template for one in ("</answer>", "|><|end|>", "endfor %}<|assist")
    ):
        pytest.skip("a token that is not special is seen where it is all of the closing")
    turn = id_of("<|eot_id|>", made)
    assert find_ends(made, (), ()) == Ends((EOS, turn), turn)
    assert find_ends(made, (7, turn), ()) == Ends((7, turn, EOS), turn)


def test_a_template_that_closes_with_eos_or_with_nothing_has_eos_alone():
    own = build_character_tokenizer("01")
    assert find_ends(own, (), ()) == Ends((EOS,), EOS)
    for template in (
        TURN + "{{ m.content }}{% endfor %}",  # the next header, <|user|>, closes nothing
        TURN + "{{ m.content + '\n' }}{% endfor %}",
        "{{ messages[0].content }}",  # no assistant
        "{% if messages | length > 1 %}{{ raise_exception('one message') }}{% endif %}1",
    ):
        assert find_ends(tokenizer(template), (5,), ()) == Ends((5, EOS), EOS)


@pytest.mark.parametrize(
    ("closing", "tokens"),
    [("[/INST]", ()), ("</answer>", ()), ("<|eot_id|>", ()), ("<|a|><|b|>", ("<|a|>", "<|b|>"))],
)
def test_a_closing_that_is_no_special_token_is_refused_with_the_remedy(closing, tokens):
    template = TURN + f"{{{{ m.content }}}}{closing}{{% endfor %}}"
    made = tokenizer(template, tokens, special=False)
    with pytest.raises(ValueError, match=r"problems.ending_tokens = .'<\|end\|>',") as caught:
        find_ends(made, (), ())
    assert repr(closing) in str(caught.value)
    assert find_ends(made, (), ("<|end|>",)) == Ends((EOS,), EOS)


def test_named_tokens_are_added_and_the_first_is_taught():
    made = tokenizer(CLOSED["by a special token"], ("<|eot_id|>", "<|stop|>"))
    turn, stop = (id_of(one, made) for one in ("<|eot_id|>", "<|stop|>"))
    assert find_ends(made, (9,), ("<|stop|>", "0")) == Ends((9, EOS, turn, stop, 5), stop)
    for wrong in ("<|stopp|>", "01", "", "x"):
        with pytest.raises(ValueError, match=r"problems.ending_tokens: '.*' "):
            find_ends(made, (), (wrong,))


def test_ends_are_described_by_text_and_id():
    made = tokenizer(CLOSED["by a special token"])
    turn = id_of("<|eot_id|>", made)
    words = f"completions end with <|end|> (1) or <|eot_id|> ({turn})"
    assert describe_ends((EOS, turn), made) == words


def test_what_stands_behind_an_answer():
    assert turn_closing(build_character_tokenizer("0")) == "<|end|>"
    assert turn_closing(tokenizer(CLOSED["with a line break behind"])) == "<|eot_id|>\n"


@pytest.mark.parametrize("special", [True, False])
def test_the_end_is_no_part_of_a_completion_s_text(special):
    """Else "12<|eot_id|>" would be the answer where the token is not marked as special."""
    made = tokenizer(CLOSED["by a special token"], special=special)
    for stop, tokens, text in (
        (StopReason.EOS, (6, 7, id_of("<|eot_id|>", made)), "12"),
        (StopReason.LENGTH, (6, 7, 7), "122"),
    ):
        completion = Completion(
            prompt_index=0,
            sample_index=0,
            tokens=np.asarray(tokens),
            sampler_logprobs=np.zeros(3, np.float32),
            stop_reason=stop,
            policy_version=0,
        )
        assert completion_text(completion, made) == text
