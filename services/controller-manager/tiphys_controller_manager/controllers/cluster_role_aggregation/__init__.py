"""Fills the rules of aggregated ClusterRoles."""
