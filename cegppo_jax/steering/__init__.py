"""Measured entropy to betas: schedule, controller, guard, bonus."""
