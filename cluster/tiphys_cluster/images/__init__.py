"""Images that a cluster needs before any registry: how they are made, kept and loaded into nodes."""
