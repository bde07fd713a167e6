"""Attention, one interface over several implementations: choose.py has the table."""
