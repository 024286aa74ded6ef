"""The REST door: the registry at the documented addresses, with the documented envelopes."""
