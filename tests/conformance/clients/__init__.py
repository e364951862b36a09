"""Client libraries that others wrote, each with its ordinary operations against a running server."""
