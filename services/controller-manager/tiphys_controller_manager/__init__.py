"""The controllers: small loops that drive the cluster to what was asked."""
