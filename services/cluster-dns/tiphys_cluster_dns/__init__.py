"""Answers DNS for services and pods from EndpointSlices."""
