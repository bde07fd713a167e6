"""config.json of a Hugging Face model <-> ModelConfig. Every field is used, known to change
nothing (harmless_fields.py), ignored because the user says so, or reported in an error that
names it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from cegppo_jax.models.config import ModelConfig, RopeScaling
from cegppo_jax.models.pretrained.harmless_fields import IRRELEVANT


@dataclasses.dataclass(frozen=True)
class Family:
    """The defaults of transformers that a model_type's config.json may leave out."""

    architecture: str
    query_key_value_bias: bool
    query_key_norm: bool
    head_size: int | None  # None: hidden_size / num_attention_heads
    tied_embeddings: bool
    rope_theta: float
    unrotated_interval: int  # one layer in this many has no rotary positions; 0: none


FAMILIES: dict[str, Family] = {
    "llama": Family("LlamaForCausalLM", False, False, None, False, 10_000.0, 0),
    "qwen2": Family("Qwen2ForCausalLM", True, False, None, False, 10_000.0, 0),
    "qwen3": Family("Qwen3ForCausalLM", False, True, 128, False, 10_000.0, 0),
    "smollm3": Family("SmolLM3ForCausalLM", False, False, None, True, 2_000_000.0, 4),
}

# config.json -> ModelConfig, one to one.
REQUIRED = {
    "vocab_size": "vocab_size",
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "mlp_width",
    "rms_norm_eps": "norm_epsilon",
}
# Read by the functions below.
READ = {
    *("num_key_value_heads", "head_dim", "tie_word_embeddings", "max_position_embeddings"),
    *("rope_theta", "rope_scaling", "rope_parameters", "no_rope_layers", "no_rope_layer_interval"),
    *("layer_types", "use_sliding_window", "sliding_window", "max_window_layers"),
}
# What they must be, in the words of the error; null is a missing field.
WHOLE, NUMBER, SWITCH = "a positive whole number", "a positive number", "true or false"
COUNT = "a whole number"
WORD, WORDS, BITS, OBJECT = "a word", "a list of words", "a list of 0 and 1", "an object"
KINDS: dict[str, str] = {
    **dict.fromkeys(REQUIRED, WHOLE),
    **dict.fromkeys(("num_key_value_heads", "head_dim", "max_position_embeddings"), WHOLE),
    **dict.fromkeys(("rms_norm_eps", "rope_theta"), NUMBER),
    **dict.fromkeys(("no_rope_layer_interval", "sliding_window"), WHOLE),
    "max_window_layers": COUNT,
    **dict.fromkeys(("tie_word_embeddings", "use_sliding_window"), SWITCH),
    **dict.fromkeys(("rope_scaling", "rope_parameters"), OBJECT),
    "layer_types": WORDS,
    "no_rope_layers": BITS,
}
IS_KIND: dict[str, Callable[[Any], bool]] = {
    WHOLE: lambda value: type(value) is int and value > 0,
    COUNT: lambda value: type(value) is int and value >= 0,
    NUMBER: lambda value: type(value) in (int, float) and math.isfinite(value) and value > 0,
    SWITCH: lambda value: type(value) is bool,
    WORD: lambda value: type(value) is str,
    WORDS: lambda value: type(value) is list and all(type(one) is str for one in value),
    BITS: lambda value: type(value) is list and all(one in (0, 1) for one in value),
    OBJECT: lambda value: type(value) is dict,
}
# What the decoder does in one way only; null is a missing field.
SUPPORTED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),  # two names of one function
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "attention_dropout": (0.0,),
    "partial_rotary_factor": (1.0,),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "use_mrope": (False,),
    "rope_interleaved": (False,),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "pruned_heads": ({},),
    "chunk_size_feed_forward": (0,),
    "quantization_config": (None,),
}
LLAMA3_SCALING = {
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_max_position_embeddings": "original_tokens",
}


def model_config(
    fields: Mapping[str, Any], place: str, ignored_fields: Collection[str] = ()
) -> ModelConfig:
    """Reads config.json, given as a dict; `place` names the file in messages.

    Args:
      ignored_fields: names to ignore although nothing is known about them here.

    Raises:
      ValueError: the architecture, a field or a value of one is not supported, or one is missing.
    """
    kind = fields.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ValueError(
            f"{place}: model_type = {kind!r} is not supported; these are: {sorted(FAMILIES)}"
        )
    family = FAMILIES[kind]
    read = REQUIRED.keys() | READ | SUPPORTED.keys()
    needed = sorted(read & set(ignored_fields))
    if needed:
        raise ValueError(
            f"model.ignored_fields = {tuple(ignored_fields)}: {needed} say what the model computes "
            "and cannot be ignored"
        )
    unknown = sorted(fields.keys() - read - IRRELEVANT - set(ignored_fields))
    if unknown:
        raise ValueError(
            f"{place}: {unknown} are not known here, and may change what the model computes. If "
            f"they do not, pass them over: config.model.ignored_fields = {tuple(unknown)}"
        )
    missing = sorted(name for name in REQUIRED if fields.get(name) is None)
    if missing:
        raise ValueError(f"{place} lacks {missing}")
    _check_kinds(fields, KINDS, place)
    for name, values in SUPPORTED.items():
        if fields.get(name) is not None and fields[name] not in values:
            raise ValueError(
                f"{place}: {name} = {fields[name]!r} is not supported; it must be {values[0]!r}"
            )
    heads, layers = fields["num_attention_heads"], fields["num_hidden_layers"]
    theta, scaling = _rope(fields, family, place)
    unrotated = _unrotated(fields, family, layers, place)
    _check_windows(fields, unrotated, place)
    return ModelConfig(
        **{ours: fields[theirs] for theirs, ours in REQUIRED.items()},
        kv_heads=_given(fields, "num_key_value_heads", heads),
        head_size=_given(fields, "head_dim", family.head_size or fields["hidden_size"] // heads),
        rope_theta=theta,
        rope_scaling=scaling,
        tied_embeddings=_given(fields, "tie_word_embeddings", family.tied_embeddings),
        query_key_value_bias=family.query_key_value_bias,
        query_key_norm=family.query_key_norm,
        unrotated_layers=unrotated,
        max_tokens=_given(fields, "max_position_embeddings", None),
    )


def _check_kinds(fields: Mapping[str, Any], kinds: Mapping[str, str], place: str) -> None:
    for name, kind in kinds.items():
        value = fields.get(name)
        if value is not None and not IS_KIND[kind](value):
            raise ValueError(f"{place}: {name} = {value!r}; it is {kind}")


def _given(fields: Mapping[str, Any], name: str, default: Any) -> Any:
    """Returns a field, or the default with which transformers replaces a missing or null one."""
    value = fields.get(name)
    return default if value is None else value


def _rope(
    fields: Mapping[str, Any], family: Family, place: str
) -> tuple[float, RopeScaling | None]:
    """Returns theta and scaling, as transformers 4 (rope_theta, rope_scaling) or 5
    (rope_parameters) writes them.
    """
    spellings = [fields[n] for n in ("rope_parameters", "rope_scaling") if fields.get(n)]
    parameters = {k: v for k, v in spellings[0].items() if v is not None} if spellings else {}
    _check_kinds(parameters, dict.fromkeys(("rope_theta", *LLAMA3_SCALING), NUMBER), place)
    _check_kinds(parameters, dict.fromkeys(("rope_type", "type"), WORD), place)
    theta = parameters.pop("rope_theta", _given(fields, "rope_theta", family.rope_theta))
    if any(one != spellings[0] for one in spellings) or theta != _given(
        fields, "rope_theta", theta
    ):
        raise ValueError(
            f"{place}: rope_parameters disagrees with rope_scaling or rope_theta: leave one "
            "spelling of them"
        )
    kinds = {parameters.pop(name) for name in ("rope_type", "type") if name in parameters}
    if parameters.get("partial_rotary_factor") == 1:
        del parameters["partial_rotary_factor"]
    if kinds == {"linear"} and parameters == {"factor": 1}:  # positions divided by 1
        return float(theta), None
    if kinds <= {"default"} and not parameters:
        return float(theta), None
    if kinds != {"llama3"} or parameters.keys() != LLAMA3_SCALING.keys():
        raise ValueError(
            f"{place}: rotary positions of type {sorted(kinds)} with {sorted(parameters)} are not "
            f"supported; 'default' and 'llama3' (with {sorted(LLAMA3_SCALING)}) are"
        )
    values = {ours: parameters[theirs] for theirs, ours in LLAMA3_SCALING.items()}
    return float(theta), RopeScaling(**values)


def _unrotated(
    fields: Mapping[str, Any], family: Family, layers: int, place: str
) -> tuple[int, ...]:
    """Returns the layers without rotary positions: 0 in no_rope_layers (its name says the
    opposite).
    """
    interval = family.unrotated_interval
    named = [n for n in ("no_rope_layers", "no_rope_layer_interval") if fields.get(n) is not None]
    if not interval:
        if named:
            raise ValueError(f"{place}: {named} are not supported with {fields['model_type']!r}")
        return ()
    interval = _given(fields, "no_rope_layer_interval", interval)
    rotated = _given(fields, "no_rope_layers", [(i + 1) % interval != 0 for i in range(layers)])
    if len(rotated) != layers:
        raise ValueError(f"{place}: no_rope_layers has {len(rotated)} entries for {layers} layers")
    return tuple(i for i, rotates in enumerate(rotated) if not rotates)


def _check_windows(fields: Mapping[str, Any], unrotated: tuple[int, ...], place: str) -> None:
    """Raises ValueError when a layer's attention is windowed, by the rules of transformers'
    configurations. A window as long as the longest sequence cuts nothing off.
    """
    kinds = sorted(set(fields.get("layer_types") or ()) - {"full_attention"})
    family = fields["model_type"]
    defaults = {"qwen2": 4096, "qwen3": 4096, "smollm3": None}
    window = fields.get("sliding_window", defaults.get(family, 0))  # Llama's has no meaning
    longest = fields.get("max_position_embeddings")
    if longest is not None and window is not None and window >= longest:
        kinds = [kind for kind in kinds if kind != "sliding_attention"]
        window = None
    if kinds:
        raise ValueError(f"{place}: layer_types {kinds} are not supported")
    if not fields.get("use_sliding_window") or window is None or fields.get("layer_types"):
        return
    first, layers = _given(fields, "max_window_layers", 28), fields["num_hidden_layers"]
    windowed = {
        "qwen2": range(first, layers),
        "qwen3": range(first, layers),
        "smollm3": unrotated,
    }.get(family, range(layers))
    if windowed:
        raise ValueError(
            f"{place}: use_sliding_window = True is not supported: {len(windowed)} of {layers} "
            f"layers have a window (sliding_window = {fields.get('sliding_window')})"
        )


def family_of(model: ModelConfig) -> str:
    """Returns the model_type that computes a ModelConfig.

    Raises:
      ValueError: none does, because its options belong to several families.
    """
    asked = (model.query_key_value_bias, model.query_key_norm, bool(model.unrotated_layers))
    for name, family in FAMILIES.items():
        bias, norm = family.query_key_value_bias, family.query_key_norm
        if (bias, norm, bool(family.unrotated_interval)) == asked:
            return name
    raise ValueError(
        f"no family of {sorted(FAMILIES)} has query_key_value_bias, query_key_norm, "
        f"unrotated_layers = {asked}"
    )


def huggingface_fields(model: ModelConfig, dtype: str) -> dict[str, Any]:
    """Returns a config.json for a model and the dtype of its weights, spelled so that
    transformers 4 and 5, vLLM and SGLang all read it. `model_config` of it gives the same
    ModelConfig.
    """
    kind = family_of(model)
    fields: dict[str, Any] = {
        "architectures": [FAMILIES[kind].architecture],
        "model_type": kind,
        **{theirs: getattr(model, ours) for theirs, ours in REQUIRED.items()},
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_size,
        "hidden_act": "silu",
        "rope_theta": model.rope_theta,
        "tie_word_embeddings": model.tied_embeddings,
        "torch_dtype": dtype,
    }
    if model.max_tokens is not None:
        fields["max_position_embeddings"] = model.max_tokens
    if model.rope_scaling is not None:
        values = {t: getattr(model.rope_scaling, ours) for t, ours in LLAMA3_SCALING.items()}
        fields["rope_scaling"] = {"rope_type": "llama3", **values}
    if model.unrotated_layers:
        fields["no_rope_layers"] = [int(model.rotates(i)) for i in range(model.layers)]
    return fields
