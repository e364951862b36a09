"""Serve a CSI driver in a few lines; see docs/adding/csi-driver.md."""
