"""What may be written as a string is also a value: both are read as the same, in every setting."""

import json
from contextlib import nullcontext
from fractions import Fraction

import pytest
import tiny_recipe

from cegppo_jax.data.problem_files import ProblemSet
from cegppo_jax.data.tokenizer import TemplateOption
from cegppo_jax.read_settings import read_setting
from cegppo_jax.rewards.scoring import Bonus
from cegppo_jax.run.directory import check_same
from cegppo_jax.run.evaluation_folder import check_tokenizer_of_run
from cegppo_jax.run.settings import RunSettings, read_settings
from cegppo_jax.storage import strict_json
from cegppo_jax.storage.strict_json import write_json

VERL = (("answer", "gold"), ("layout", "verl"), ("unanswered", "skip"))

# setting, short form, value, what the record holds
ENTRIES = [
    ("problems.train", "a.jsonl", {"name": "a.jsonl"}, ProblemSet("a.jsonl")),
    (
        "problems.train",
        "a.jsonl=0.7",
        {"name": "a.jsonl", "weight": 0.7},
        ProblemSet("a.jsonl", weight=Fraction(7, 10)),
    ),
    (
        "problems.train",
        "a.jsonl=1/3",
        {"name": "a.jsonl", "weight": "1/3"},
        ProblemSet("a.jsonl", weight=Fraction(1, 3)),
    ),
    (
        "problems.train",
        "hf:a/b:train[:10]=2",
        {"name": "hf:a/b:train[:10]", "weight": 2},
        ProblemSet("hf:a/b:train[:10]", weight=Fraction(2)),
    ),
    (
        "problems.train",
        "a.jsonl?problem=q",
        {"name": "a.jsonl", "fields": {"problem": "q"}},
        ProblemSet("a.jsonl", (("problem", "q"),)),
    ),
    (
        "problems.train",
        "a.jsonl?problem=q=1e-2",
        {"name": "a.jsonl", "fields": (("problem", "q"),), "weight": 1e-2},
        ProblemSet("a.jsonl", (("problem", "q"),), weight=Fraction(1, 100)),
    ),
    ("problems.train", "a=b.jsonl", {"name": "a=b.jsonl"}, ProblemSet("a=b.jsonl")),
    (
        "problems.train",
        "a.jsonl?problem=q&verl&unanswered=skip&answer=gold",
        {"name": "a.jsonl", "fields": {"layout": "verl", "unanswered": "skip", "answer": "gold"}},
        ProblemSet("a.jsonl", VERL),
    ),
    ("problems.train", "task:sums", {"task": "sums"}, ProblemSet(task="sums")),
    (
        "problems.train",
        "task:sums:4-8=2",
        {"task": "sums", "steps": (4, 8), "weight": 2},
        ProblemSet(task="sums", steps=(4, 8), weight=Fraction(2)),
    ),
    (
        "problems.held_out",
        "task:countdown:2-3:500",
        {"task": "countdown", "steps": (2, 3), "problems": 500},
        ProblemSet(task="countdown", steps=(2, 3), problems=500),
    ),
    ("problems.held_out", "a=2", {"name": "a=2"}, ProblemSet("a=2")),
    (
        "problems.template_options",
        "enable_thinking=false",
        ("enable_thinking", False),
        TemplateOption("enable_thinking", False),
    ),
    (
        "problems.template_options",
        'effort="high"',
        {"name": "effort", "value": "high"},
        TemplateOption("effort", "high"),
    ),
    ("problems.template_options", "n=[1, 2]", ("n", [1, 2]), TemplateOption("n", (1, 2))),
    ("reward.by_source", "gsm8k=math", ("gsm8k", "math"), ("gsm8k", "math")),
    ("reward.by_source", " a=b = own:f ", ("a=b", "own:f"), ("a=b", "own:f")),
    ("reward.bonuses", "format=0.1", ("format", 0.1), Bonus("format", 0.1)),
    ("reward.bonuses", "format=1", {"verifier": "format", "weight": 1}, Bonus("format", 1.0)),
]
FIELDS = [
    ("plain", {"layout": "plain"}, (("layout", "plain"),)),
    ("problem=q&answer=a.b", (("problem", "q"), ("answer", "a.b")), None),
    ("verl&unanswered=skip&answer=gold", dict(VERL), VERL),
    ("answer=old&answer=gold", (("answer", "gold"),), (("answer", "gold"),)),
    ("", (), ()),
]


def saved(value):
    """What config.json gives back."""
    return json.loads(strict_json.dumps(value, sort_keys=True))


@pytest.mark.parametrize(("name", "short", "value", "held"), ENTRIES)
def test_a_short_form_is_read_as_its_value(name, short, value, held):
    read = read_setting(RunSettings, name, (short,))
    assert read == (held,)
    assert {read: "hashable"}
    for written in ((value,), [value], saved((value,)), saved((short,))):
        assert read_setting(RunSettings, name, written) == read


@pytest.mark.parametrize(("short", "value", "held"), FIELDS)
def test_the_short_form_of_fields_is_read_as_its_value(short, value, held):
    read = read_setting(RunSettings, "problems.fields", short)
    for written in (value, saved(value)):
        assert sorted(read_setting(RunSettings, "problems.fields", written)) == list(read)
    assert held is None or read == held


def with_entry(name, entry):
    config = tiny_recipe.get_config()
    if name in ("problems.train", "problems.held_out"):
        config.problems.task = ""
    config.problems.held_out = ("b.jsonl",) if config.problems.task == "" else ()
    config.update_from_flattened_dict({name: (entry,)})
    return config


@pytest.mark.parametrize(
    ("name", "entry", "message"),
    [
        ("problems.train", "task:sums:4", "expected task:NAME[:MIN-MAX[:COUNT]]"),
        ("problems.train", "task:chess", "task = 'chess' does not exist"),
        ("problems.train", "a.jsonl?verll", "layout = 'verll' does not exist: did you mean 'verl'"),
        ("problems.train", "a.jsonl?question=q", "role = 'question' does not exist"),
        ("problems.train", "a.jsonl?problem=", "problem and answer need the name of a field"),
        ("problems.train", "a.jsonl?unanswered=drop", "unanswered is 'drop'"),
        ("problems.train", {"nmae": "a.jsonl"}, "nmae is not a setting: did you mean 'name'?"),
        ("problems.train", {"name": 3}, "name = 3 is of type int, not str"),
        ("problems.train", {"name": "a.jsonl", "weight": "much"}, "weight = 'much': a finite"),
        ("problems.train", {"name": "a.jsonl", "weight": float("nan")}, "weight = nan: a finite"),
        ("problems.train", {"name": "a.jsonl", "weight": True}, "weight = True: a finite"),
        ("problems.train", {"name": "a.jsonl", "task": "sums"}, "either a name or a task"),
        ("problems.train", {}, "either a name or a task"),
        ("problems.train", {"name": "a.jsonl", "steps": (2, 3)}, "steps and problems are of a"),
        ("problems.train", {"task": "sums", "fields": "verl"}, "fields are of a file's rows"),
        ("problems.train", {"task": "sums", "steps": (2,)}, "steps = (2,): (least, most)"),
        ("problems.train", 3, "3"),
        ("problems.held_out", {"name": "a.jsonl", "fields": {"layout": "x"}}, "layout = 'x'"),
        ("problems.held_out", {"task": "sums", "problems": 2.5}, "problems = 2.5 is of type float"),
        ("problems.template_options", "enable_thinking", "expected 'name=value'"),
        ("problems.template_options", "enable_thinking=no", "'no' is not JSON"),
        ("problems.template_options", "a b=1", "'a b' is not the name of a variable"),
        ("problems.template_options", "top=NaN", "nan cannot be written as JSON"),
        ("problems.template_options", ("top", {1, 2}), "{1, 2} cannot be written as JSON"),
        ("problems.template_options", ("top",), "expected 2 values, (name, value)"),
        ("reward.by_source", "=math", "expected 'name=value'"),
        ("reward.by_source", ("gsm8k", "math", "x"), "has 3 values: expected 2"),
        ("reward.by_source", ("gsm8k", 1), "1 is of type int, not str"),
        ("reward.bonuses", "format=much", "could not convert string to float: 'much'"),
        ("reward.bonuses", ("format", "0.1"), "weight = '0.1' is of type str, not float"),
        ("reward.bonuses", ("format", -1), "weight = -1.0: above 0 and at most 1e+06"),
        ("reward.bonuses", ("format", 1e-46), "weight = 1e-46 does not fit into float32"),
    ],
)
def test_a_bad_entry_is_named_with_its_setting(name, entry, message):
    with pytest.raises(ValueError) as raised:
        read_settings(with_entry(name, entry))
    assert str(raised.value).startswith(f"config.{name}[0] = {entry!r}: ")
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("verll", "layout = 'verll' does not exist: did you mean 'verl'"),
        ((("question", "q"),), "role = 'question' does not exist"),
        ((("problem", "q", "x"),), "has 3 values: expected 2"),
        (("problem", "q"), "is of type str, not tuple"),
        (3, "3 is of type int, not tuple"),
    ],
)
def test_bad_fields_are_named(fields, message):
    config = tiny_recipe.get_config()
    config.problems.fields = fields
    with pytest.raises(ValueError) as raised:
        read_settings(config)
    assert "problems.fields" in str(raised.value)
    assert message in str(raised.value)


def test_an_entry_of_a_tuple_is_named_by_its_position():
    config = with_entry("reward.by_source", ("a", "math"))
    config.reward.by_source = (("a", "math"), "b")
    with pytest.raises(ValueError, match=r"config.reward.by_source\[1\] = 'b': expected 'name"):
        read_settings(config)


@pytest.mark.parametrize(("name", "short", "value", "held"), ENTRIES)
def test_a_run_goes_on_in_the_other_form(name, short, value, held, tmp_path):
    """Nested like a config: section, setting."""
    section, setting = name.split(".")
    one, other = ({section: {setting: (written,)}} for written in (short, value))
    for first, second in ((one, other), (other, one)):
        assert check_same(saved(first), second, one, tmp_path, ()) == []
    different = {section: {setting: ("task:expressions",) if section == "problems" else ("x=y",)}}
    with pytest.raises(ValueError, match=f"another config:\n  {name}: the run has"):
        check_same(saved(different), other, one, tmp_path, ())


def test_fields_go_on_in_the_other_form(tmp_path):
    short = {"problems": {"fields": "verl&answer=gold"}}
    value = {"problems": {"fields": (("answer", "gold"), ("layout", "verl"))}}
    assert check_same(saved(short), value, short, tmp_path, ()) == []
    with pytest.raises(ValueError, match=r"problems\.fields: the run has 'verl&answer=gold'"):
        check_same(saved(short), {"problems": {"fields": "verl"}}, short, tmp_path, ())


def test_a_run_is_evaluated_with_its_template_options_in_either_form(tmp_path):
    config = tiny_recipe.get_config()
    config.problems.template_options = ("enable_thinking=false",)
    write_json(tmp_path / "config.json", config.to_dict())
    for value in (False, True):
        config.problems.template_options = (("enable_thinking", value),)
        expected = pytest.raises(ValueError, match="template_options") if value else nullcontext()
        with expected:
            check_tokenizer_of_run(read_settings(config).problems, tmp_path)


def test_every_setting_with_a_short_form_can_be_written_in_a_recipe():
    """ConfigDict keeps the type of a setting: it must take both forms, one after the other."""
    config = tiny_recipe.get_config()
    for name, short, value, _ in ENTRIES:
        config.update_from_flattened_dict({name: (short,)})
        config.update_from_flattened_dict({name: (value,)})
    for short, value, _ in FIELDS:
        config.problems.fields = short
        config.problems.fields = tuple(value.items()) if isinstance(value, dict) else value
    assert strict_json.dumps(config.to_dict())
