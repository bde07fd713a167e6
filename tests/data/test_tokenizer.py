"""The character tokenizer is exact, survives saving, and nothing unknown passes in silence."""

import json
import re

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cegppo_jax.data.tasks.table import TASKS
from cegppo_jax.data.tokenizer import (
    CHAT_TEMPLATE,
    TemplateOption,
    build_character_tokenizer,
    check_text,
    encode_text,
    holds_words,
    load_tokenizer,
    token_texts,
)

# Spaces, newlines, a full stop behind a space, a quote and a letter outside ASCII: what tokenizers
# like to strip, merge or normalise.
AWKWARD = " .,'\n\té0123"


def test_ids_are_specials_then_characters():
    tokenizer = build_character_tokenizer("07+")
    assert tokenizer.get_vocab() == {
        "<|pad|>": 0,
        "<|end|>": 1,
        "<|user|>": 2,
        "<|assistant|>": 3,
        "<|unknown|>": 4,
        "0": 5,
        "7": 6,
        "+": 7,
    }
    assert len(tokenizer) == 8
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 4)
    assert tokenizer.encode("7+00", add_special_tokens=False) == [6, 7, 5, 5]


@pytest.mark.parametrize("text", [" ", "  .  ", "\n\n0 \t1\n", "é'0 .,", " 0 ", ""])
def test_round_trip_is_exact_also_after_saving(tmp_path, text):
    tokenizer = build_character_tokenizer(AWKWARD)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == text
    assert loaded.encode(text, add_special_tokens=False) == ids
    assert loaded.decode(ids) == text
    assert loaded.eos_token_id == tokenizer.eos_token_id
    messages = [{"role": "user", "content": text}]
    assert loaded.apply_chat_template(messages, return_dict=False) == [2, *ids]


def test_chat_template_renders_every_role():
    tokenizer = build_character_tokenizer("123")
    messages = [
        {"role": "system", "content": "1"},
        {"role": "user", "content": "2"},
        {"role": "assistant", "content": "3"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == "1<|user|>2<|assistant|>3<|end|>"
    text = tokenizer.apply_chat_template(messages[1:2], tokenize=False, add_generation_prompt=True)
    assert text == "<|user|>2<|assistant|>"


def test_special_tokens_vanish_from_a_decoded_completion():
    tokenizer = build_character_tokenizer("#7")
    assert tokenizer.decode([3, 5, 6, 1, 2, 0], skip_special_tokens=True) == "#7"


def test_every_task_can_be_spelled_in_its_alphabet():
    for task in TASKS.values():
        tokenizer = build_character_tokenizer(task.alphabet)
        assert len(tokenizer) == 5 + len(task.alphabet)


@pytest.mark.parametrize(
    ("characters", "message"),
    [("", "the alphabet is empty"), ("0120", r"the alphabet repeats \['0'\]")],
)
def test_bad_alphabet(characters, message):
    with pytest.raises(ValueError, match=message):
        build_character_tokenizer(characters)


def test_encode_text_gives_the_ids_or_names_the_character():
    tokenizer = build_character_tokenizer("#7")
    assert encode_text("7#7", tokenizer, "solution of problem 'p1'") == (6, 5, 6)
    message = (
        "solution of problem 'p1' has the character 'x', "
        "which the tokenizer's vocabulary of 7 tokens does not know"
    )
    with pytest.raises(ValueError, match=message):
        encode_text("7x#", tokenizer, "solution of problem 'p1'")


@pytest.mark.parametrize("token", ["<|end|>", "<|assistant|>", "<|pad|>", "<|unknown|>"])
def test_spelled_special_token_is_refused(token):
    tokenizer = build_character_tokenizer("7<|>adeinpstukow")
    message = f"problem 'p1' contains the special token '{token.replace('|', '[|]')}'"
    with pytest.raises(ValueError, match=message):
        check_text(f"7{token}7", tokenizer, "problem 'p1'")
    check_text("7<|en|>7", tokenizer, "problem 'p1'")


def test_unknown_without_a_single_guilty_character_is_still_an_error():
    words = Tokenizer(models.WordLevel({"?": 0, "a": 1, "b": 2}, unk_token="?"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?")
    with pytest.raises(ValueError, match="problem 'p1' has text that the tokenizer does not know"):
        check_text("ab", tokenizer, "problem 'p1'")


def test_load_tokenizer_needs_a_chat_template_and_an_end(tmp_path):
    tokenizer = build_character_tokenizer("7")
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "no_template")
    with pytest.raises(ValueError, match="no_template' has no chat template: use an instruction"):
        load_tokenizer(str(tmp_path / "no_template"))

    tokenizer = build_character_tokenizer("7")
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path / "no_end")
    with pytest.raises(ValueError, match="no_end' has no eos_token, so no completion could ever"):
        load_tokenizer(str(tmp_path / "no_end"))


def saved_tokenizer(folder, **fields):
    """A character tokenizer in a folder, with some fields of tokenizer_config.json changed."""
    build_character_tokenizer("7").save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return str(folder)


def test_a_models_own_code_is_never_run_and_never_asked_about(tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda _: pytest.fail("asked whether to run the code"))
    custom = {"auto_map": {"AutoTokenizer": ["own.Own", None]}, "tokenizer_class": "Own"}
    name = saved_tokenizer(tmp_path, **custom)
    (tmp_path / "own.py").write_text("raise SystemExit('the model ran its code')")
    with pytest.raises(ValueError, match="no tokenizer can be read at"):
        load_tokenizer(name)


def test_of_several_chat_templates_the_default_one_is_taken(tmp_path):
    several = [
        {"name": "default", "template": CHAT_TEMPLATE},
        {"name": "tool_use", "template": "tools"},
    ]
    name = saved_tokenizer(tmp_path, chat_template=several)
    (tmp_path / "chat_template.jinja").unlink()
    assert load_tokenizer(name).chat_template == CHAT_TEMPLATE


@pytest.mark.parametrize("content", ["{}", '{"model": {"type": "Unheard"}}', "[", "[]"])
@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_tokenizer_is_named(file, content, tmp_path):
    name = saved_tokenizer(tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(ValueError, match=str(tmp_path)):
        load_tokenizer(name)


def test_an_option_that_is_part_of_another_word_is_none(tmp_path):
    name = saved_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="the chat template does not read 'exception'"):
        load_tokenizer(name, [TemplateOption("exception", 1)])  # it has raise_exception


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x03\0\0\0" + b"\xff" * 40])
def test_a_gguf_file_that_is_not_whole_is_named(content, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model.gguf \(.* bytes\) is not a whole GGUF file"):
        load_tokenizer(str(path))


def normalising(normalizer, characters="0123456789x\u00b2\u00e9 \nab"):
    tokenizer = build_character_tokenizer(characters)
    tokenizer.backend_tokenizer.normalizer = normalizer
    return tokenizer


@pytest.mark.parametrize(
    ("normalizer", "text", "becomes"),
    [
        (normalizers.NFKC(), "3x\u00b2", "from character 2 on, '\u00b2' becomes '2'"),
        (normalizers.Lowercase(), "3X", "from character 1 on, 'X' becomes 'x'"),
        (normalizers.Replace("\n", ""), "1\n2", "from character 1 on, '\\n2' becomes '2'"),
        (normalizers.Replace(Regex("[^ -~]"), ""), "a\u00b2", "from character 1 on"),
    ],
)
def test_text_that_a_normaliser_changes_is_refused(normalizer, text, becomes):
    """x\u00b2 would read x2, and 1, 2 would read 12."""
    with pytest.raises(ValueError, match=re.escape(becomes)) as caught:
        check_text(text, normalising(normalizer), "problem 'p1'")
    assert "problem 'p1' is changed by the tokenizer" in str(caught.value)


def test_characters_that_a_tokenizer_drops_are_refused():
    """Byte pairs without bytes, without an unknown token: what they do not know vanishes."""
    pairs = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    pairs.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pairs)
    check_text("abba", tokenizer, "problem 'p1'")
    with pytest.raises(ValueError, match="from character 2 on, 'cb' becomes 'b'"):
        check_text("abcb", tokenizer, "problem 'p1'")


def test_canonical_spellings_and_added_spaces_are_no_loss():
    check_text("e\u0301 1", normalising(normalizers.NFC()), "problem 'p1'")  # as Qwen's composes
    words = Tokenizer(models.WordLevel({"7": 0, "+": 1, "5": 2, "?": 3}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?")
    assert tokenizer.decode(tokenizer.encode("7+5")) == "7 + 5"
    check_text("7+5", tokenizer, "problem 'p1'")
    assert holds_words("a b", "a  b")
    assert holds_words(" a b", "a\nb ")
    assert not holds_words("ab", "a b")
    assert not holds_words("a", "a b")


def test_the_texts_of_tokens_join_to_the_whole():
    """A byte a token: the last byte of a character has all of it; half a character is shown."""
    tokenizer = build_character_tokenizer("07+ ")
    tokens = tokenizer.encode("7 +0<|end|>", add_special_tokens=False)
    assert token_texts(tokenizer, tokens) == ["7", " ", "+", "0", "<|end|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytewise = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bytewise.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=bytewise, clean_up_tokenization_spaces=False)
    texts = token_texts(fast, fast.encode("a é😀."))
    assert texts == ["a", " ", "", "é", "", "", "", "😀", "."]
    assert token_texts(fast, fast.encode("é")[:1]) == ["\N{REPLACEMENT CHARACTER}"]
    assert token_texts(fast, []) == []
