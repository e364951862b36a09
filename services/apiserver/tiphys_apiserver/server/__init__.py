"""The chain every request passes, in order, and what it is made of."""
