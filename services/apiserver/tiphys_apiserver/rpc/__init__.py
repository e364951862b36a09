"""The gRPC door: the same endpoints with ready bytes."""
