"""From prompts to scored groups: the actor, rounds of sampling, selection."""
