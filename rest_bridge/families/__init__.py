"""The API families: each tells its routes, and the registry has them all."""
