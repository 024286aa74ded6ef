"""Administer Linux machines over SSH through typed tools, for agents and people."""

__version__ = "0.1.0"
