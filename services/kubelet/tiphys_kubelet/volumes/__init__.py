"""Volumes: one plugin a kind, one table of them, and what puts them in place for a pod."""
