"""The functions of expressions: CEL's own, cel-go's extensions and Kubernetes', each a table."""
