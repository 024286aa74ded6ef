"""How a connection is made: addresses, proxies, algorithms, login."""
