"""Kits that tests share."""
