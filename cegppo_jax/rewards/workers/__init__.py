"""Verifiers in processes that can be killed."""
