"""Large outputs, kept as files, and searches in them."""
