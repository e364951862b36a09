"""The node agent: keeps the pods that are bound to its node running on a CRI runtime, and reports how they are."""
