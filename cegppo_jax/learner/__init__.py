"""Groups to parameters: advantages, mini-batches, the update."""
