"""Admission by webhooks: others are asked before anything is stored."""
