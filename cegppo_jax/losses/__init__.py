"""Token statistics -> loss: surrogates, reductions, metrics."""
