"""What cannot work is said before anything is compiled."""

import pytest
from tiny_recipe import get_config

from cegppo_jax.data.tokenizer import build_character_tokenizer
from cegppo_jax.run.checks import check_thinking_shows
from cegppo_jax.run.settings import read_settings

NO_TAGS, TAGS = "0123456789+#", "0123456789+#</think>"


def reward(**changes):
    config = get_config()
    config.reward.update(changes)
    return read_settings(config).reward


def tokenizer(alphabet):
    return build_character_tokenizer("".join(dict.fromkeys(alphabet)))


@pytest.mark.parametrize(
    "changes",
    [{"scope": "after_think"}, {"bonuses": ("format=0.1",)}],
    ids=str,
)
def test_tags_that_no_text_can_have_are_an_error(changes):
    special = tokenizer(TAGS)
    special.add_special_tokens({"additional_special_tokens": ["</think>"]})
    for blind in (tokenizer(NO_TAGS), special):
        with pytest.raises(ValueError, match=r"</think>.* tokenizer"):
            check_thinking_shows(reward(**changes), blind)
        check_thinking_shows(reward(), blind)
    check_thinking_shows(reward(**changes), tokenizer(TAGS))
