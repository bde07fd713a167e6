"""Held-out problems to accuracy with intervals."""
