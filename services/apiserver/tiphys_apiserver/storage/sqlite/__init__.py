"""The embedded default: one file, one server, durable by group commit."""
