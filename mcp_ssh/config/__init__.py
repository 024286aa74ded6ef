"""The configuration file: its models, and its edits."""
