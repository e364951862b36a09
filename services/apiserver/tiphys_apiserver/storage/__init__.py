"""Where objects are kept: the store behind one interface, and the watch cache before it."""
