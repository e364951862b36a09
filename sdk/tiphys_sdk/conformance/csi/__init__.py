"""What the contract csi.v1 demands of a driver, as steps that name what failed."""
