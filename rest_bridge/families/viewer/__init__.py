"""The viewer family."""
