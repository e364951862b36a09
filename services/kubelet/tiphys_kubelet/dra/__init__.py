"""Devices that pods claim: drivers that prepare them, and what they have prepared."""
