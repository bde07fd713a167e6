"""Make tests/models/golden: a tiny random checkpoint of every family, as transformers saves it, and
the logits that transformers computes with it. Needs the extra `parity`.

    python tests/models/make_golden.py
"""

import shutil
from pathlib import Path

import numpy as np
import torch
from families import FAMILIES
from transformers import AutoConfig, AutoModelForCausalLM

GOLDEN = Path(__file__).parent / "golden"
TOKENS = np.random.default_rng(0).integers(3, 40, size=(2, 12))


def random_model(fields: dict, seed: int = 0):
    """config.json fields -> a transformers model with weights that matter: norms and biases too."""
    fields = dict(fields)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(fields.pop("model_type"), **fields)
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            scale = 0.3 if "norm" in name or "bias" in name else weight.shape[-1] ** -0.5
            weight.copy_(scale * torch.randn_like(weight) + (1.0 if "norm" in name else 0.0))
    return model.eval()


def logits_of(model, tokens):
    with torch.no_grad():
        return model(torch.tensor(tokens)).logits.numpy()


def main() -> None:
    for name, fields in FAMILIES.items():
        folder = GOLDEN / name
        shutil.rmtree(folder, ignore_errors=True)
        model = random_model(fields)
        sharded = {"max_shard_size": "24KB"} if name == "qwen2" else {}
        model.save_pretrained(folder, **sharded)
        np.savez(folder / "logits.npz", tokens=TOKENS, logits=logits_of(model, TOKENS))


if __name__ == "__main__":
    main()
