"""Lets deleted volumes go when no claim is bound to them."""
