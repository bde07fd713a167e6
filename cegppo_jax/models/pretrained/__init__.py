"""Weights of others: Hugging Face folders, hub ids, GGUF files."""
