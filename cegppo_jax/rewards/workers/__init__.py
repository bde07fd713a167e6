"""Runs verifiers in processes that can be killed."""
