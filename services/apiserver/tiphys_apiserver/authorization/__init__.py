"""Who may: RBAC, nodes, and their union."""
