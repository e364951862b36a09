"""Benches that test a plugin from outside: one folder per kind, and what they share."""
