"""CSI drivers on a node."""
