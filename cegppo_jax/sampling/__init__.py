"""From prompts to completions: continuous batching over fixed decode slots."""
