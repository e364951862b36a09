"""Plugins that change what the plugins before them made, or hand on to them."""
