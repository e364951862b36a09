"""The Pod Security Standards: what a pod may be at each level."""
