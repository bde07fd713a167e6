"""Export of a run: what others load is what was trained, whole or not at all."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import child_runs
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cegppo_jax import export
from cegppo_jax.console.start import EXIT_CODE
from cegppo_jax.data.saved_tokenizer import check_tokenizer_reads_back, save_tokenizer
from cegppo_jax.data.tokenizer import build_character_tokenizer
from cegppo_jax.export import export_run
from cegppo_jax.models.attention.mask import SegmentMask
from cegppo_jax.models.config import ModelConfig, RopeScaling
from cegppo_jax.models.decoder import Decoder, output_head, run_decoder
from cegppo_jax.models.pretrained.huggingface_config import huggingface_fields, model_config
from cegppo_jax.models.pretrained.open import open_pretrained
from cegppo_jax.models.pretrained.weights import leaves, source_shape, tensor_names
from cegppo_jax.run.checkpoint import Checkpointer
from cegppo_jax.run.one_writer import DirectoryLock
from cegppo_jax.run.position import RunPosition
from cegppo_jax.run.saved_model import save_model_description
from cegppo_jax.steering.steer import START
from cegppo_jax.storage.lease import InUseError


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    """-> (directory of a run with checkpoints of steps 0 and 3, parameters of step 3)."""
    workdir = tmp_path_factory.mktemp("run")
    tiny_run.problems.tokenizer.save_pretrained(workdir / "tokenizer")
    save_model_description(workdir, tiny_run.model, tiny_run.ends.ids)
    with jax.set_mesh(tiny_run.mesh), Checkpointer(workdir / "checkpoints", None) as checkpoints:
        state = tiny_run.initial_state(tiny_run.learner)
        checkpoints.save(state, RunPosition(0, 0, START))
        moved = jax.tree.map(lambda leaf: leaf + 0.1, state.params)
        checkpoints.save(dataclasses.replace(state, params=moved), RunPosition(3, 0, START))
    return workdir, jax.tree.map(np.asarray, moved)


def read_back(out, mesh):
    opened = open_pretrained(str(out))
    return opened, jax.tree.map(np.asarray, opened.load(mesh))


def assert_trees_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_float32_is_bit_for_bit(run, tiny_run, tmp_path):
    workdir, params = run
    exported = export_run(workdir, tmp_path / "out", "float32", None, 2.0)
    assert (exported.step, exported.files, exported.logit_difference) == (3, 1, 0.0)
    opened, read = read_back(tmp_path / "out", tiny_run.mesh)
    assert_trees_equal(read, params)
    assert opened.model == tiny_run.model
    assert opened.eos_ids == tiny_run.ends.ids


def test_bfloat16_is_rounded_once(run, tiny_run, tmp_path):
    workdir, params = run
    exported = export_run(workdir, tmp_path / "out", "bfloat16", None, 2.0)
    assert 0 < exported.logit_difference < 0.1
    _, read = read_back(tmp_path / "out", tiny_run.mesh)
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(np.float32), params)
    assert_trees_equal(read, rounded)


def test_who_may_read_one_file_may_read_all(run, tmp_path):
    workdir, _ = run
    umask = os.umask(0o027)
    try:
        export_run(workdir, tmp_path / "out", "float32", None, 4e-6)
    finally:
        os.umask(umask)
    written = [p for p in (tmp_path / "out").iterdir() if "token" not in p.name]
    modes = {p.name: oct(p.stat().st_mode & 0o777) for p in written if p.suffix != ".jinja"}
    assert set(modes.values()) == {"0o640"}, modes


def test_shards_and_an_older_step(run, tiny_run, tmp_path):
    workdir, params = run
    out = tmp_path / "deep" / "out"
    exported = export_run(workdir, out, "float32", 0, 4e-6)
    assert exported.step == 0
    index = json.loads((out / "model.safetensors.index.json").read_text())
    files = sorted(out.glob("*.safetensors"))
    assert len(files) == exported.files > 2
    assert {file.name for file in files} == set(index["weight_map"].values())
    assert index["metadata"]["total_size"] == 4 * sum(leaf.size for leaf in jax.tree.leaves(params))
    _, read = read_back(out, tiny_run.mesh)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b - 0.1, atol=1e-6), read, params)


def test_transformers_computes_the_same_logits(run, tiny_run, tmp_path):
    torch = pytest.importorskip("torch", reason="extra parity: transformers' models need torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    workdir, params = run
    export_run(workdir, tmp_path / "out", "float32", None, 2.0)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    tokens = np.arange(12)[None] % tiny_run.model.vocab_size
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens)).logits.numpy()
    decoder = Decoder(tiny_run.model, jnp.float32, unrolled=False)
    mask = SegmentMask(jnp.ones_like(tokens))
    hidden, _ = run_decoder(decoder, params, tokens, np.arange(12)[None], mask)
    np.testing.assert_allclose(hidden @ output_head(params), expected, atol=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    own = tiny_run.problems.tokenizer
    assert tokenizer.encode("7+5*3") == own.encode("7+5*3")
    assert tokenizer.chat_template == own.chat_template
    assert theirs.generation_config.eos_token_id == list(tiny_run.ends.ids)


def test_how_the_source_generates_is_kept(run, tiny_run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(run[0], workdir)
    source = {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "max_length": 99}
    source |= {"repetition_penalty": 1.05, "pad_token_id": 4, "bos_token_id": None}
    of_the_file = {"_from_model_config": True, "transformers_version": "4.30.0"}
    ends = (7, 1, 5)
    save_model_description(workdir, tiny_run.model, ends, source | of_the_file)
    out = tmp_path / "out"
    export_run(workdir, out, "float32", None, 2.0)
    written = json.loads((out / "generation_config.json").read_text())
    assert written == source | {"eos_token_id": [7, 1, 5]}
    fields = json.loads((out / "config.json").read_text())
    assert (fields["eos_token_id"], fields["pad_token_id"]) == ([7, 1, 5], 4)
    assert "temperature" not in fields
    opened = open_pretrained(str(out))
    assert opened.eos_ids == ends
    assert opened.generation == written


def test_the_tokenizer_is_spelled_as_transformers_4_reads_it(run, tiny_run, tmp_path):
    """With transformers 4 itself: transformers4_reads_exports.py."""
    export_run(run[0], tmp_path / "out", "float32", None, 2.0)
    fields = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert fields["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert fields["additional_special_tokens"] == ["<|user|>", "<|assistant|>"]
    assert "extra_special_tokens" not in fields
    template = tiny_run.problems.tokenizer.chat_template
    assert fields["chat_template"] == template
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == template


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer_class": "TokenizersBackend"}, "tokenizer_class = 'TokenizersBackend'"),
        ({"extra_special_tokens": ["<|user|>"]}, "is a list"),
        ({"chat_template": "{{ messages }}"}, "another chat template"),
        ({"additional_special_tokens": ["<|user|>"]}, "another special tokens"),
        ({"eos_token": "<|pad|>"}, "another"),
    ],
)
def test_a_tokenizer_that_would_be_read_otherwise_is_refused(changes, message, tmp_path):
    tokenizer = build_character_tokenizer("0123")
    save_tokenizer(tokenizer, tmp_path)
    check_tokenizer_reads_back(tmp_path, tokenizer)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=message):
        check_tokenizer_reads_back(tmp_path, tokenizer)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "int8"}, "dtype = 'int8':"),
        ({"step": 2}, "has no checkpoint of step 2; it has [0, 3]"),
        ({"shard_gigabytes": 0.0}, "shard_gigabytes = 0.0:"),
        ({"shard_gigabytes": float("inf")}, "shard_gigabytes = inf:"),
        ({"out": "."}, "already exists: choose another folder"),
        ({"workdir": "nothing"}, "holds no run of this version"),
    ],
)
def test_what_is_refused_leaves_nothing(changes, message, run, tmp_path):
    given = {"workdir": run[0], "out": tmp_path / "out", "dtype": "float32", "step": None}
    given |= {"shard_gigabytes": 2.0} | changes
    given |= {n: tmp_path / given[n] for n in ("workdir", "out")}
    with pytest.raises(ValueError) as raised:
        export_run(**given)
    assert message in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_what_something_else_left_is_not_removed(run, tmp_path):
    left = tmp_path / "out.partial" / "config.json"
    left.parent.mkdir()
    left.touch()
    with pytest.raises(ValueError, match=r"out.partial .*remove it"):
        export_run(run[0], tmp_path / "out", "float32", None, 2.0)
    assert left.exists()


def test_what_a_killed_export_left_is_written_anew_and_a_running_one_is_not(run, tmp_path):
    """Its lock says which it is. Nothing of the lock is in the export."""
    with DirectoryLock(tmp_path / "out.partial") as lock:
        lock.hold()
        (tmp_path / "out.partial" / "model.safetensors").write_text("half")
        (tmp_path / "out.partial" / "more").mkdir()
        with pytest.raises(InUseError, match=r"out.partial is being written to by process \d+"):
            export_run(run[0], tmp_path / "out", "float32", None, 2.0)
    export_run(run[0], tmp_path / "out", "float32", None, 2.0)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "model.safetensors"} < names
    assert not names & {".writer", "more"}


@pytest.mark.slow
def test_an_export_that_is_stopped_leaves_nothing(finished_run, tmp_path):
    command = child_runs.words("export", f"--run={finished_run[0]}", f"--out={tmp_path / 'out'}")
    child = subprocess.Popen(
        command,
        cwd=child_runs.ROOT,
        env=child_runs.environment(None),
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "out.partial").exists():
        assert child.poll() is None
        time.sleep(0.001)
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate()
    assert (child.returncode, errors.splitlines()[-1]) == (EXIT_CODE, "stopped")
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_reads_back_otherwise_is_no_export(run, tmp_path, monkeypatch):
    def spoiled(params, model, dtype):
        for name, tensor in export_tensors(params, model, dtype):
            yield name, tensor + (name == "model.layers.0.mlp.up_proj.weight")

    export_tensors = export.export_tensors
    monkeypatch.setattr(export, "export_tensors", spoiled)
    with pytest.raises(ValueError, match=r"does not read back.*layers/block/mlp/up/kernel"):
        export_run(run[0], tmp_path / "out", "float32", None, 2.0)
    assert not list(tmp_path.iterdir())


def test_a_dtype_that_cannot_hold_the_weights_is_refused(run, tiny_run, tmp_path):
    workdir, params = tmp_path / "run", run[1]
    shutil.copytree(run[0], workdir)
    large = jax.tree.map(lambda leaf: np.full_like(leaf, 1e5), params)
    state = dataclasses.replace(tiny_run.initial_state(tiny_run.learner), params=large)
    with jax.set_mesh(tiny_run.mesh), Checkpointer(workdir / "checkpoints", None) as checkpoints:
        checkpoints.save(state, RunPosition(4, 0, START))
    with pytest.raises(ValueError, match=r"tensor '\S+' has \S+ of \S+ .* float16"):
        export_run(workdir, tmp_path / "out", "float16", None, 2.0)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_weights_that_are_not_finite_are_told_as_such(run, tiny_run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(run[0], workdir)
    nan = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), run[1])
    state = dataclasses.replace(tiny_run.initial_state(tiny_run.learner), params=nan)
    with jax.set_mesh(tiny_run.mesh), Checkpointer(workdir / "checkpoints", None) as checkpoints:
        checkpoints.save(state, RunPosition(4, 0, START))
    with pytest.raises(ValueError, match=r"checkpoints/4: tensor '\S+' has .* NaN or"):
        export_run(workdir, tmp_path / "new" / "deep" / "out", "float32", None, 2.0)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_damaged_checkpoint_is_told_in_a_line(run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(run[0], workdir)
    state = workdir / "checkpoints" / "3" / "state"
    for file in state.rglob("*"):
        if file.is_file() and "/d/" in file.as_posix():
            file.write_bytes(file.read_bytes()[:10])
    with pytest.raises(ValueError, match=r"checkpoints/3 cannot be read \(") as raised:
        export_run(workdir, tmp_path / "out", "float32", None, 2.0)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_the_command(run, tmp_path):
    command = [sys.executable, "-m", "cegppo_jax.export", f"--workdir={run[0]}"]
    options = {
        **{"capture_output": True, "text": True, "cwd": child_runs.ROOT},
        "env": child_runs.environment(None),
    }
    done = subprocess.run([*command, f"--out={tmp_path / 'out'}"], **options, check=True)
    assert "step 3: " in done.stdout
    assert "read back bit for bit" in done.stdout
    assert not done.stderr
    again = subprocess.run([*command, f"--out={tmp_path / 'out'}"], **options)
    assert again.returncode == 1
    assert again.stderr.splitlines()[-1].startswith("error: ")


SHAPES = {
    "r1_distill_qwen_1p5b": (151936, 1536, 28, 12, 2, 8960, 1.78),
    "r1_distill_qwen_7b": (152064, 3584, 28, 28, 4, 18944, 7.62),
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_papers_models_in_shapes_alone(name):
    """Every tensor of the published checkpoints has a place of its size: nothing is computed."""
    vocab, width, layers, heads, kv_heads, mlp_width, billions = SHAPES[name]
    model = ModelConfig(
        vocab_size=vocab,
        width=width,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_size=128,
        mlp_width=mlp_width,
        rope_theta=10_000.0,
        norm_epsilon=1e-6,
        tied_embeddings=False,
        query_key_value_bias=True,
    )
    names = tensor_names(model)
    assert len(names) == 3 + layers * 12
    assert names["model.layers.27.self_attn.k_proj.bias"][2] == (kv_heads * 128,)
    assert names["lm_head.weight"][2] == (vocab, width)
    count = sum(int(np.prod(shape)) for _, _, shape in names.values())
    assert count / 1e9 == pytest.approx(billions, abs=0.005)
    assert count == sum(int(np.prod(shape)) for shape, _ in leaves(model).values())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tied_embeddings": True, "query_key_value_bias": True},
        {"query_key_norm": True, "head_size": 8},
        {"unrotated_layers": (1, 3)},
        {"rope_scaling": RopeScaling(8.0, 1.0, 4.0, 64), "max_tokens": 128},
    ],
)
def test_config_json_says_all_of_a_model(options, model):
    whole = (
        dataclasses.replace(model, layers=4, tied_embeddings=False, **options)
        if ("tied_embeddings" not in options)
        else dataclasses.replace(model, layers=4, **options)
    )
    assert model_config(huggingface_fields(whole, "float32"), "config.json") == whole


def test_a_mixture_of_families_has_no_name(model):
    mixture = dataclasses.replace(model, query_key_value_bias=True, query_key_norm=True)
    with pytest.raises(ValueError, match="no family of"):
        huggingface_fields(mixture, "float32")


def test_source_shapes_are_transposed():
    assert source_shape("attention/query/kernel", (24, 4, 6)) == (24, 24)
    assert source_shape("attention/out/kernel", (4, 6, 20)) == (20, 24)
    assert source_shape("mlp/up/kernel", (24, 40)) == (40, 24)
    assert source_shape("attention/query/bias", (4, 6)) == (24,)
    assert source_shape("embedding", (40, 24)) == (40, 24)
