"""Reads a .gguf file: the fields of a config.json, and tensors under their Hugging Face names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

# general.architecture -> model_type. llama.cpp interleaves the rotary pairs of "llama" files.
ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
INTERLEAVED = ("llama",)

# <architecture>.<key> -> config.json
FIELDS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "rope.freq_base": "rope_theta",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "vocab_size": "vocab_size",
}
# Say the same as another: the rotation covers whole heads, and values are as long as keys.
SAME_AS = {"rope.dimension_count": "head_dim", "attention.value_length": "head_dim"}

# tokenizer.ggml.<name>: tokens that end a completion
ENDS = ("eos_token_id", "eos_token_ids", "eot_token_id", "eom_token_id")

# Buffers that old converters copied, and that every program recomputes
RECOMPUTED = re.compile(r"blk\.\d+\.attn_rot_embd(\.weight)?")
# GGUF -> generation_config.json
SAMPLING = {
    "general.sampling.temp": "temperature",
    "general.sampling.top_k": "top_k",
    "general.sampling.top_p": "top_p",
    "general.sampling.min_p": "min_p",
    "general.sampling.penalty_repeat": "repetition_penalty",
}
# GGUF -> Hugging Face, each followed by ".weight" or ".bias"
GGUF_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
INNER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def gguf_fields(reader: gguf.GGUFReader, place: str) -> dict[str, Any]:
    """Returns GGUF metadata as a config.json that huggingface_config.model_config reads.

    Raises:
      ValueError: the architecture or a field of it is not supported.
    """
    metadata = {name: field.contents() for name, field in reader.fields.items()}
    architecture = metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"{place}: architecture {architecture!r} is not supported; these are: "
            f"{sorted(ARCHITECTURES)}"
        )
    prefix = f"{architecture}."
    own = {n.removeprefix(prefix): v for n, v in metadata.items() if n.startswith(prefix)}
    unknown = sorted(own.keys() - FIELDS.keys() - SAME_AS.keys())
    if unknown:
        raise ValueError(f"{place}: {[prefix + name for name in unknown]} are not known here")
    fields: dict[str, Any] = {FIELDS[name]: value for name, value in own.items() if name in FIELDS}
    fields["model_type"] = ARCHITECTURES[architecture]
    for name, same in SAME_AS.items():
        if name in own and fields.setdefault(same, own[name]) != own[name]:
            raise ValueError(f"{place}: {prefix}{name} = {own[name]}, not {fields[same]}")
    shapes = {tensor.name: tensor.shape for tensor in reader.tensors}
    if len(shapes.get("token_embd.weight", ())) != 2:
        raise ValueError(f"{place} has no table of embeddings (token_embd.weight)")
    fields.setdefault("vocab_size", int(shapes["token_embd.weight"][1]))
    fields["tie_word_embeddings"] = "output.weight" not in shapes
    if "rms_norm_eps" in fields:  # stored in single precision: 1e-5 reads 9.999999747378752e-06
        fields["rms_norm_eps"] = float(str(np.float32(fields["rms_norm_eps"])))
    return fields


def gguf_ends(reader: gguf.GGUFReader) -> list[int]:
    """Returns the ids of tokens that end the text, a turn or a message (a tool call), including
    those in a list that some converters write.
    """
    found: list[int] = []
    for name in ENDS:
        field = reader.fields.get(f"tokenizer.ggml.{name}")
        if field is not None:
            found.extend(np.atleast_1d(field.contents()).tolist())
    return found


def gguf_generation(reader: gguf.GGUFReader) -> dict[str, Any]:
    """Returns the generation_config.json of the sampling that the file recommends."""
    found = {
        name: reader.fields[field].contents()
        for field, name in SAMPLING.items()
        if field in reader.fields
    }
    # Single precision: 0.6 reads 0.6000000238418579
    found = {name: v if type(v) is int else float(str(np.float32(v))) for name, v in found.items()}
    return found | ({"do_sample": found["temperature"] > 0} if "temperature" in found else {})


class GGUFSource:
    """The tensors of a .gguf file."""

    def __init__(self, reader: gguf.GGUFReader, head_size: int, path: Path):
        self.files = (path,)
        self.place = str(path)
        architecture = reader.fields["general.architecture"].contents()
        self._interleaved = architecture in INTERLEAVED
        self._head_size = head_size
        self._tensors = {
            _huggingface_name(t.name, str(path)): t
            for t in reader.tensors
            if not RECOMPUTED.fullmatch(t.name)
        }

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes by name. GGUF writes them in reverse."""
        return {n: tuple(int(s) for s in t.shape[::-1]) for n, t in self._tensors.items()}

    def read(self, name: str, rows: slice, columns: slice) -> np.ndarray:
        """Returns that part of a tensor, dequantised to float32."""
        tensor = self._tensors[name]
        whole = rows
        mixed = self._interleaved and name.endswith(("q_proj.weight", "k_proj.weight"))
        if mixed:  # whole heads
            size = self._head_size
            whole = slice(rows.start // size * size, -(-rows.stop // size) * size)
        values = gguf.dequantize(tensor.data[whole], tensor.tensor_type)
        if mixed:
            # Pair i is rows 2 i and 2 i + 1 of its head there, rows i and i + H / 2 here.
            heads = values.reshape(-1, self._head_size // 2, 2, values.shape[-1])
            values = heads.swapaxes(1, 2).reshape(values.shape)
            values = values[rows.start - whole.start : rows.stop - whole.start]
        return values if values.ndim == 1 else values[:, columns]


def _huggingface_name(name: str, place: str) -> str:
    stem, _, ending = name.rpartition(".")
    if inner := re.fullmatch(r"blk\.(\d+)\.(\w+)", stem):
        layer, own = inner.groups()
        if own in INNER:
            return f"model.layers.{layer}.{INNER[own]}.{ending}"
    if stem in GGUF_OUTER:
        return f"{GGUF_OUTER[stem]}.{ending}"
    raise ValueError(f"{place}: tensor {name!r} is not known here")
