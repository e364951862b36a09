"""CEL expressions: compiled once, evaluated against objects. Who has expressions says which functions they may call."""
