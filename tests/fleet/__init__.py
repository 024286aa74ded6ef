"""Real SSH hosts in Linux namespaces, for tests: a Debian under systemd and a genuine Alpine under OpenRC (see README.md)."""
