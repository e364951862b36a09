"""Operators made with tiphys_sdk.operators."""
