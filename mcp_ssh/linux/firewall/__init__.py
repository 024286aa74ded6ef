"""Firewalls of machines: nftables, iptables, firewalld."""
