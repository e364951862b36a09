"""What a scheduler is told by its configuration file."""
