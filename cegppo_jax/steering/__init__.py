"""From measured entropy to betas: schedule, controller, guard, bonus."""
