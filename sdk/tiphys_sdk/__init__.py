"""For plugin authors: serve a plugin in a few lines, and test it."""
