"""Keeps the legacy Endpoints of each Service."""
