"""Files that are not what they should be: damages of them, the code of the package that reads them,
and what comes of it.

A damaged file must be refused in words that name it, or read as if it were whole. A number that
changes without a word, or an error that only a traceback explains, is a fault of the package.
"""

import contextlib
import dataclasses
import io
import json
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import gguf
import jax
import numpy as np
import test_gguf_ends
import tiny_recipe
from safetensors.numpy import save_file
from tokenizers.pre_tokenizers import ByteLevel

from cegppo_jax.compare import read_results
from cegppo_jax.data.chat_template import check_template
from cegppo_jax.data.fields import FIELD_MAPS
from cegppo_jax.data.problem_files import load_problems, named_set
from cegppo_jax.data.saved_tokenizer import save_tokenizer
from cegppo_jax.data.tokenizer import CHAT_TEMPLATE, build_character_tokenizer, load_tokenizer
from cegppo_jax.evaluation.estimates import Attempt, summarise
from cegppo_jax.evaluation.files import attempt_line, open_completions, write_results
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import init_params
from cegppo_jax.models.pretrained.huggingface_config import huggingface_fields
from cegppo_jax.models.pretrained.open import open_pretrained
from cegppo_jax.models.pretrained.weights import export_tensors
from cegppo_jax.reporting.metrics import MetricsWriter, Phase, check_lines, without_clock
from cegppo_jax.reporting.picture_words import origin_words, read_config
from cegppo_jax.reporting.run_log import open_run_log
from cegppo_jax.run import command_line
from cegppo_jax.run.directory import check_claimable, claim
from cegppo_jax.run.saved_model import open_run_model, save_model_description
from cegppo_jax.storage.jsonl import JsonlLog
from cegppo_jax.types import Outcome, StopReason

STEPS = 6
MOST_WORDS = 3000  # characters of a message
LINES = {"metrics.jsonl": STEPS + 1, "updates.jsonl": 2 * STEPS, "samples.jsonl": 2}


@dataclasses.dataclass(frozen=True)
class Kind:
    """A file, and what reads it."""

    name: str
    file: str  # in the folder that `make` fills
    make: Callable[[Path], None]
    read: Callable[[Path], object]  # the folder -> what the file says, to be compared
    first_bytes: int | None = None  # only these are damaged; None: any
    # Whether damaged content is whole all the same, another file: it says other things, and nothing
    # shows that it should not
    another: Callable[[bytes], bool] = lambda content: False


# What a whole folder is like


def make_run(folder):
    """The directory of a run after 6 steps, without its arrays."""
    config = tiny_recipe.get_config().to_dict() | {"command": "train"}
    claim(folder, config, command_line.default_settings())
    save_tokenizer(build_character_tokenizer("0123456789+= "), folder / "tokenizer")
    save_model_description(folder, MODEL, [1])
    (folder / "checkpoints" / "6").mkdir(parents=True)
    (folder / "checkpoints" / "6" / "_CHECKPOINT_METADATA").touch()
    with MetricsWriter(folder, None, ()) as metrics:
        for step in range(STEPS + 1):
            values = {"reward/mean": 0.1 * step, "policy/entropy": 1 / 3}
            values |= {"update/num_updates": 2} if step else {}
            metrics.write(Phase.RL, step, values)
    lines = [
        {"phase": "rl", "step": step, "update": update, "update/loss": 0.5}
        for step in range(1, STEPS + 1)
        for update in range(2)
    ]
    sample = {"phase": "rl", "id": "p", "problem": "1 + 1", "answer": "2", "sample": 0}
    sample |= {"completion": "1 + 1 = 2", "outcome": "correct", "read": "2", "rule": None}
    sample |= {"reward": 1.0, "tokens": 9, "stop_reason": "eos", "advantage": 0.5}
    sample |= {"token_texts": ["1"], "token_logprobs": [-0.5], "token_entropies": [0.25]}
    samples = [sample | {"step": step, "token_log_ratios": [0.0]} for step in (2, 4)]
    for name, content in {"updates.jsonl": lines, "samples.jsonl": samples}.items():
        with JsonlLog(folder / name, None, "a line") as log:
            log.append(content)
    make_evaluation(folder / "evaluations" / "step6-0123abcd")


def make_evaluation(folder):
    folder.mkdir(parents=True)
    attempts = [
        Attempt(
            problem, f"p{problem}", sample, "7 + 5 = 12", "12", "12",
            Outcome.CORRECT if (problem + sample) % 3 else Outcome.WRONG, 1.0, 11, StopReason.EOS,
        )
        for problem in range(4)
        for sample in range(2)
    ]  # fmt: skip
    (folder / "config.json").write_text(json.dumps({"step": 6, "run": "runs/a"}))
    with open_completions(folder) as log:
        log.append(map(attempt_line, attempts))
    write_results(folder, summarise(attempts), attempts, 1.0)


def make_problems(folder):
    rows = [{"id": f"p{n}", "problem": f"What is {n} + 1?", "answer": n + 1} for n in range(8)]
    rows = [row | {"answer": str(row["answer"])} for row in rows]
    (folder / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


MODEL = ModelConfig(
    vocab_size=24,
    width=8,
    layers=1,
    heads=2,
    kv_heads=1,
    head_size=4,
    mlp_width=12,
    rope_theta=10_000.0,
    norm_epsilon=1e-6,
    tied_embeddings=True,
)


def make_model(folder):
    """A folder as of the Hugging Face hub."""
    params = init_params(MODEL, jax.random.key(0))
    tensors = {name: np.asarray(one) for name, one in export_tensors(params, MODEL, "float32")}
    save_file(tensors, folder / "model.safetensors")
    fields = huggingface_fields(MODEL, "float32")
    (folder / "config.json").write_text(json.dumps(fields, indent=2))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2]}))
    save_tokenizer(build_character_tokenizer("0123456789+= "), folder)


def make_gguf(folder):
    """A .gguf file with weights and a tokenizer."""
    tokens = [*sorted(ByteLevel.alphabet()), "xy", "<|end|>"]
    written = {"eos_token_id": len(tokens) - 1}
    vocabulary = test_gguf_ends.VOCABULARY
    add = gguf.GGUFWriter.add_uint32

    def with_tokenizer(writer, name, value):
        add(writer, name, value)
        if name == "tokenizer.ggml.eos_token_id":
            writer.add_tokenizer_model("gpt2")
            writer.add_tokenizer_pre("qwen2")
            writer.add_token_list(tokens)
            writer.add_token_types([1] * (len(tokens) - 1) + [3])
            writer.add_token_merges(["x y"])
            writer.add_chat_template(CHAT_TEMPLATE.replace("<|user|>", "U"))

    try:
        test_gguf_ends.VOCABULARY = len(tokens)
        gguf.GGUFWriter.add_uint32 = with_tokenizer
        test_gguf_ends.written(folder / "model.gguf", written)
    finally:
        test_gguf_ends.VOCABULARY, gguf.GGUFWriter.add_uint32 = vocabulary, add


# What reads them


def read_run(folder):
    """As `train` does at its door, and report.png."""
    config = tiny_recipe.get_config().to_dict() | {"command": "train"}
    check_claimable(folder, config, command_line.default_settings())
    log = open_run_log(folder)
    return origin_words(folder, read_config(folder)), log.settings, len(log.versions), log.step


def read_versions(folder):
    """The commits of the starts: no number comes of anything else in it."""
    read_run(folder)
    return [start.get("git") for start in open_run_log(folder).versions]


def read_logs(folder):
    """As a run that is resumed does, and the page."""
    check_lines(folder, (Phase.RL, STEPS), LINES)
    log = open_run_log(folder)
    columns = [{name: column[name].tolist() for name in column} for column in (log.rl, log.updates)]
    return [without_clock(line) for line in log.lines], columns, log.samples


def read_evaluation(folder):
    """As `compare` and the page do."""
    attempts = read_results(folder / "evaluations" / "step6-0123abcd")
    return summarise(attempts), [one.result for one in open_run_log(folder).evaluations]


def read_run_model(folder):
    """As `evaluate` and `export` do."""
    run = open_run_model(folder, None)
    return run.model, run.eos_ids, read_tokenizer(Path(run.tokenizer))


def read_problems(folder):
    return load_problems(named_set(str(folder / "train.jsonl")), FIELD_MAPS["plain"])


def read_model(folder):
    found = open_pretrained(str(folder))
    return found.model, dict(found.source.shapes), found.eos_ids, dict(found.generation)


def read_tokenizer(folder):
    """-> what prompts, completions and their ends are made with."""
    tokenizer = load_tokenizer(str(folder))
    check_template(tokenizer, with_system_prompt=False)
    text = "12 + 3 = 15"
    messages = [{"role": "user", "content": text}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer.encode(prompt, add_special_tokens=False)
    return (
        sorted(tokenizer.get_vocab().items()),
        tokenizer.eos_token,
        prompt,
        ids,
        tokenizer.decode(ids),
    )


def read_gguf(folder):
    path = str(folder / "model.gguf")
    found = open_pretrained(path)
    shapes = dict(found.source.shapes)
    return found.model, shapes, found.eos_ids, read_tokenizer(Path(path))


def other_starts(content):
    """No number comes of them."""
    starts = json.loads(content)
    return isinstance(starts, list) and all(type(one.get("git", "")) is str for one in starts)


def other_rows(content):
    """A number is read as a text of its digits, and nobody knows how many rows there were."""
    rows = [json.loads(line) for line in content.splitlines()]
    return all(type(v) in (str, int, float) for row in rows for v in row.values())


def other_generation(content):
    fields = json.loads(content)
    ids = fields.get("eos_token_id", 0)
    return type(ids) is int and 0 <= ids < MODEL.vocab_size


def other_template(content):
    """Cut between two statements it is a template that writes no header of an answer, as those of
    some families.
    """
    return content == CHAT_TEMPLATE[: CHAT_TEMPLATE.index("{% if add_gen")].encode()


EVALUATION = "evaluations/step6-0123abcd"
KINDS = [
    Kind("config.json of a run", "config.json", make_run, read_run),
    Kind("versions.json", "versions.json", make_run, read_versions, another=other_starts),
    Kind("metrics.jsonl", "metrics.jsonl", make_run, read_logs),
    Kind("updates.jsonl", "updates.jsonl", make_run, read_logs),
    Kind("samples.jsonl", "samples.jsonl", make_run, read_logs),
    Kind("completions.jsonl", f"{EVALUATION}/completions.jsonl", make_run, read_evaluation),
    Kind("evaluation.json", f"{EVALUATION}/evaluation.json", make_run, read_evaluation),
    Kind("model/config.json of a run", "model/config.json", make_run, read_run_model),
    Kind("generation_config.json of a run", "model/generation_config.json", make_run,
         read_run_model),
    Kind("tokenizer.json of a run", "tokenizer/tokenizer.json", make_run, read_run_model),
    Kind("problems (jsonl)", "train.jsonl", make_problems, read_problems, another=other_rows),
    Kind("config.json of a model", "config.json", make_model, read_model),
    Kind("generation_config.json", "generation_config.json", make_model, read_model,
         another=other_generation),
    Kind("safetensors, header", "model.safetensors", make_model, read_model, 1200),
    Kind("tokenizer.json", "tokenizer.json", make_model, read_tokenizer),
    Kind("tokenizer_config.json", "tokenizer_config.json", make_model, read_tokenizer),
    Kind("chat_template.jinja", "chat_template.jinja", make_model, read_tokenizer,
         another=other_template),
    Kind("GGUF, metadata", "model.gguf", make_gguf, read_gguf, 6000),
]  # fmt: skip


# Damages: (bytes, first bytes that are damaged, random) -> bytes


def cut(content, most, chance):
    """Cut at a random place."""
    return content[: chance.randrange(min(most, len(content)))]


def zeroed(content, most, chance):
    """A range of zeros: what a machine that lost its power leaves."""
    start = chance.randrange(min(most, len(content)))
    size = chance.choice([1, 7, 64, 512])
    stop = min(start + size, len(content))
    return content[:start] + bytes(stop - start) + content[stop:]


def nul(content, most, chance):
    """A byte of zero put in."""
    place = chance.randrange(min(most, len(content)))
    return content[:place] + b"\0" + content[place:]


def nested(content, most, chance):
    """100,000 brackets: all there is, or in the place of a value."""
    brackets = chance.choice(["[", '{"a":']) * 100_000
    value = chance.choice([brackets, "[" * 100_000 + "]" * 100_000, "[" * 300 + "]" * 300])
    text = content.decode("utf-8", "replace")
    places = [i for i, letter in enumerate(text[:most]) if letter == ":"]
    if not places or chance.random() < 0.3:
        return value.encode()
    place = chance.choice(places) + 1
    return (text[:place] + value + "," + text[place:]).encode()


def retyped(content, most, chance):
    """One value of the JSON, or of one line of it, is of another type."""
    del most
    lines = content.split(b"\n")
    try:
        whole = json.loads(content)
    except ValueError:
        number = chance.randrange(len(lines))
        try:
            whole = json.loads(lines[number])
        except ValueError:
            return nul(content, len(content), chance)  # no JSON
        changed = [*lines[:number], with_a_type_changed(whole, chance), *lines[number + 1 :]]
        return b"\n".join(changed)
    return with_a_type_changed(whole, chance)


def with_a_type_changed(value, chance):
    places = list(places_of(value))
    holder, key = chance.choice(places)
    old = holder[key]
    others = ["text", 7, -1, 0.5, True, [], [1, 2], {}, {"a": 1}, 10**30, "1"]
    holder[key] = chance.choice([one for one in others if kind_of(one) is not kind_of(old)])
    return json.dumps(value).encode()


def kind_of(value):
    """A whole number is a number: which of them was meant nobody knows."""
    return float if type(value) is int else type(value)


def places_of(value):
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield value, key
        if isinstance(inner, dict | list):
            yield from places_of(inner)


def swapped(content, most, chance):
    """The content of another file."""
    del content, most
    return chance.choice(
        [
            b"",
            b"[]",
            b"{}",
            b"null",
            b"7\n",
            b'"text"',
            b'{"phase": "rl", "step": 1}\n',
            b'[{"role": "user"}]',
            b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4,
            b"GGUF" + bytes(60),
            (64).to_bytes(8, "little") + b"{}".ljust(64),
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
            b"<html><body>404</body></html>",
            "{}".encode("utf-16"),
        ]
    )


DAMAGES = (cut, zeroed, nul, nested, retyped, swapped)


def outcome_of(kind, damage, seed):
    """Damages a file and reads it -> ("refused" | "the same" | "changed" | "traceback", words)."""
    with tempfile.TemporaryDirectory(prefix="damaged-") as scratch:
        folder = Path(scratch) / "whole"
        shutil.copytree(whole_folder(kind), folder, symlinks=True)
        path = folder / kind.file
        content = path.read_bytes()
        most = kind.first_bytes or len(content)
        damaged = damage(content, most, random.Random(seed))
        if damaged == content:
            return "the same", "not damaged"
        path.write_bytes(damaged)
        whole = expected(kind)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            try:
                found = kind.read(folder)
            except (ValueError, OSError) as error:
                words = str(error)
                names = path.name, path.parent.name, str(folder)
                if any(name in words for name in names) and len(words) <= MOST_WORDS:
                    return "refused", words
                return "traceback", f"does not name {path.name}: {type(error).__name__}: {words}"
            except BaseException as error:  # pyo3's panics are no Exception
                if isinstance(error, KeyboardInterrupt):
                    raise
                return "traceback", f"{type(error).__name__}: {error}"
        if repr(found) == whole:
            return "the same", ""
        if "skipped" in printed.getvalue():
            return "refused", printed.getvalue()
        with contextlib.suppress(ValueError, AttributeError):
            if kind.another(damaged):
                return "another", ""
        return "changed", repr(found)[:300]


_folders: dict[object, Path] = {}
_read: dict[str, str] = {}


def whole_folder(kind):
    """The folder of a kind, made once."""
    if kind.make not in _folders:
        folder = Path(tempfile.mkdtemp(prefix="whole-"))
        kind.make(folder)
        _folders[kind.make] = folder
    return _folders[kind.make]


def expected(kind):
    if kind.name not in _read:
        _read[kind.name] = repr(kind.read(whole_folder(kind)))
    return _read[kind.name]
