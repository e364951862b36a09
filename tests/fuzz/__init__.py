"""Fuzz targets that run in processes of their own."""
