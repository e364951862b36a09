"""What pods have of the node beside CPU and memory: devices, by the device plugin contract v1beta1."""
