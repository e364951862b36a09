"""Programs the service data plane of a node."""
