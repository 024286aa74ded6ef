"""`ssh-steward check`: this machine, the configuration, and a machine behind SSH."""
