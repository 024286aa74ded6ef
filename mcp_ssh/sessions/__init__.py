"""Sessions of callers: opened, found again, asked, and closed."""
