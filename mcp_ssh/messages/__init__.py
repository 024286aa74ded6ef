"""Words for callers: hints, suggestions, validation errors, and text that is safe to show."""
