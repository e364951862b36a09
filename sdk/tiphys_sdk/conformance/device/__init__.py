"""What is demanded of a device plugin (v1beta1)."""
