"""Deletes what has no owner left."""
