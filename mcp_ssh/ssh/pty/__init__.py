"""Interactive shells on a terminal: what they print, and the screen it makes."""
