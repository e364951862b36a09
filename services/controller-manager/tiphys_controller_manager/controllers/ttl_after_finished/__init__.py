"""Deletes Jobs some time after their end, where they ask for it."""
