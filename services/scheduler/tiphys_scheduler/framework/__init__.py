"""The frame in which plugins place pods."""
