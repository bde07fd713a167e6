"""From token statistics to a loss: surrogates, reductions, metrics."""
