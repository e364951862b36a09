"""Evicts pods from nodes whose taints they do not tolerate."""
