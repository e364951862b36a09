"""Composes a whole cluster: zygote, supervisor, node namespaces, in-process cluster for tests."""
