"""Host keys: verified, stored, and replaced by those who may."""
