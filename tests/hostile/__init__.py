"""Hostile input, and what another caller waits for while it is handled."""
