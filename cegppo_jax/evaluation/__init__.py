"""From held-out problems to accuracy with intervals."""
