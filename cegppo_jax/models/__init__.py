"""The decoder-only transformer and its cache. Knows nothing of reinforcement learning."""
