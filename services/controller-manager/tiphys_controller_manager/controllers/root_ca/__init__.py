"""Puts the cluster's authority into each namespace."""
