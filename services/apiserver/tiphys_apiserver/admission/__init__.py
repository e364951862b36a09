"""What may be stored: mutating, then validating plug-ins."""
