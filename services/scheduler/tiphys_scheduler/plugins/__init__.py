"""Plugins by their Kubernetes names, one a module."""
