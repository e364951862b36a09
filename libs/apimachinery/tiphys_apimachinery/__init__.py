"""Kubernetes object machinery: scheme, codecs, selectors, quantities, validation, patches."""
