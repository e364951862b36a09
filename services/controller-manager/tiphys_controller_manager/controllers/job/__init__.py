"""Runs each Job to its end: pods made, counted once each, and judged by the policies of its spec."""
