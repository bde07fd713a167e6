"""Prompts -> completions: continuous batching over fixed decode slots."""
