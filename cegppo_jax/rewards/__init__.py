"""Verifiers and rewards: text in, score out. No jax: they run in worker processes."""
