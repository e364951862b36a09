"""Fills the token Secrets that users ask for by hand."""
