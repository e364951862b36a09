"""Watches heartbeats and says by taints what is wrong with a node."""
