"""Keeps the numbered pods of StatefulSets, each with its own name and claims."""
