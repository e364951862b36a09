"""Tests of what the node and its pods use."""
