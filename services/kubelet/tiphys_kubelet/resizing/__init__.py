"""Changing what a pod may use while it runs: what is set aside for it, and in which order the kernel is told."""
