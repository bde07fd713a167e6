"""Recipes: base.py has every knob once, each other file is one run."""
