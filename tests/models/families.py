"""Tiny models of every family, as config.json fields: what the golden files and the parity tests
are made of.
"""

SHAPE = {
    "vocab_size": 40,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
# Of its four pairs the first is kept, the second between, the others scaled.
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
FAMILIES = {
    "llama": SHAPE | {"model_type": "llama"},
    "llama_tied_one_kv": SHAPE
    | {"model_type": "llama", "tie_word_embeddings": True, "num_key_value_heads": 1},
    "llama3": SHAPE
    | {
        "model_type": "llama",
        "rope_scaling": LLAMA3,
        "head_dim": 8,
        "max_position_embeddings": 128,
    },
    "qwen2": SHAPE | {"model_type": "qwen2", "num_key_value_heads": 4},
    "qwen2_tied": SHAPE | {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": SHAPE | {"model_type": "qwen3", "head_dim": 8},
    "qwen3_tied": SHAPE | {"model_type": "qwen3", "head_dim": 6, "tie_word_embeddings": True},
    "smollm3": SHAPE
    | {
        "model_type": "smollm3",
        "num_hidden_layers": 5,
        "no_rope_layers": [1, 0, 1, 1, 0],
        "pad_token_id": 0,
    },
}
