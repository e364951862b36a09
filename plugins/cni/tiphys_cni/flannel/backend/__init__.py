"""Ways to carry packets to the other nodes: one module each, one interface."""
