"""Devices that pods claim: what there is, who has it, and which of it a claim gets."""
