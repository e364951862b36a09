"""Gives each namespace its default service account."""
