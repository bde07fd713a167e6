"""Reinforcement learning of reasoning LLMs in JAX, around CE-GPPO (arXiv 2509.20712)."""

__version__ = "0.1.0"
