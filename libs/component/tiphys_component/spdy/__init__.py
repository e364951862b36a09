"""SPDY/3.1 as container runtimes and kubectl speak it: frames (pure), a session over a connection, upgrade by HTTP."""
