"""Recipes: base.py has every setting once, each other file is one run."""
