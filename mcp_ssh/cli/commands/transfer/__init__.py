"""`ssh-steward upload` and `ssh-steward download`."""
