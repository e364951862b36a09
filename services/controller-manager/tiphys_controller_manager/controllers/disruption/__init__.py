"""Counts for each PodDisruptionBudget how many pods may be away."""
