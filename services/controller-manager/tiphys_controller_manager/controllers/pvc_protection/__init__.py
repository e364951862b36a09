"""Lets deleted claims go when no pod uses them."""
