"""Address management plugins."""
