"""Plugins of the scheduler as numpy functions."""
