"""The one place that speaks to SQLite."""
