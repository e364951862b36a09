"""Links of the chain."""
