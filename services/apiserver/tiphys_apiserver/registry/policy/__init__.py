"""Rules of the kinds of policy."""
