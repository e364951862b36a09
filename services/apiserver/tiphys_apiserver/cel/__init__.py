"""CEL expressions: compiled once, evaluated against objects, with Kubernetes' own functions."""
