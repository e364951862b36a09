"""The kinds of patch, each a pure function over plain JSON."""
