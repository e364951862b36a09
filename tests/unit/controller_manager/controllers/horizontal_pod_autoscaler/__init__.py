"""Tests of the horizontal pod autoscaler."""
