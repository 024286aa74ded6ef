"""An SSH host inside this process, to try everything on."""
