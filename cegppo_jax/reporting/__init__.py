"""What a run writes for people: metrics, samples, progress, plots."""
