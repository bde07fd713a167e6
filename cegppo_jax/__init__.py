"""Reinforcement learning of reasoning LLMs in JAX, around CE-GPPO (arXiv 2509.20712)."""

import os

__version__ = "0.1.0"

# transformers is used for its tokenizers; without this it advises at every start to install torch.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
