"""What cannot work is said before anything is compiled."""

import pytest
from tiny_recipe import get_config

from cegppo_jax.data.tokenizer import build_character_tokenizer
from cegppo_jax.run.checks import check_rows_fit, check_thinking_shows
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


def test_rows_too_long_for_the_kernels_of_attention_are_an_error(one_device):
    config = get_config()
    config.batch.row_tokens = 40_960
    check_rows_fit(read_settings(config), one_device)  # by xla
    config.trainer.attention = "splash"
    with pytest.raises(ValueError, match=r"row_tokens = 40,960.*32,768.*trainer.attention"):
        check_rows_fit(read_settings(config), one_device)
