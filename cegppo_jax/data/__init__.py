"""Problems and prompts: sources, built-in tasks, tokenizers, the prompt stream. No jax."""
