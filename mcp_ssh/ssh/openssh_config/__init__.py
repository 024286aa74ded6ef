"""The ~/.ssh/config of the owner of this server."""
