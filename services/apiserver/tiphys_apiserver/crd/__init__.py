"""Kinds defined at run time: what a CustomResourceDefinition makes of the server."""
