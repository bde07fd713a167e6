"""Verifiers and rewards: text in, score out. No jax, since they run in worker processes."""
