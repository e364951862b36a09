"""CSI drivers on this node: their registration, the calls of their node service, the CSINode object."""
