"""Real SSH hosts in Linux namespaces, for tests: Debian under systemd, Alpine under OpenRC. See README.md."""
