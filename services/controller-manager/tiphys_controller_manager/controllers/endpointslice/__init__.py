"""Keeps the EndpointSlices of each Service."""
