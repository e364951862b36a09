"""The API server: the only door to the store, by REST and gRPC."""
