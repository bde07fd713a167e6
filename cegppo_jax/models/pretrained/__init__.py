"""Pretrained weights: Hugging Face folders, hub ids, GGUF files."""
