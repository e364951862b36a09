"""The node agent: runs pods on a CRI runtime."""
