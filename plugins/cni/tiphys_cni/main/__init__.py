"""Plugins that make interfaces."""
