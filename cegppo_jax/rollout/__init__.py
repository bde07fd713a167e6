"""Prompts to scored groups: the actor, rounds of drawing, selection."""
