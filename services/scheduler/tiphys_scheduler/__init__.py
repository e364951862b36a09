"""The scheduler: places pods on nodes with columns and plugins."""
