"""Real SSH hosts in Linux namespaces, for tests: a Debian under systemd, an Alpine under OpenRC. See README.md."""
