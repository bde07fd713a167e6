"""Reinforcement learning of reasoning LLMs in JAX, around CE-GPPO (arXiv 2509.20712).

What `import cegppo_jax as cg` offers for use by hand is listed in `__all__` and described in
cegppo_jax/api/__init__.py. Names are imported when they are first used, so worker processes, which
need no jax, do not load it.
"""

import importlib
import os
from typing import Any

__version__ = "0.2.0"

# transformers is used for its tokenizers; without this it advises at every start to install torch.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

_PLACES = {
    "Policy": "policy",
    "load": "policy",
    "random_policy": "policy",
    "Samples": "samples",
    "Batch": "samples",
    "score": "samples",
    "batch": "samples",
    "Stats": "losses",
    "Terms": "losses",
    "loss": "losses",
    "surrogate": "losses",
    "gradient_weight": "losses",
    "plot_gradient_weights": "plots",
    "Trainer": "runs",
    "SavedRun": "runs",
    "open_run": "runs",
}

__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'cegppo_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"cegppo_jax.api.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
