"""Volumes that drivers mount."""
