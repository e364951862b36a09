"""Removes pods that nobody else will remove."""
