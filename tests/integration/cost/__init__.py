"""What things cost, counted and not timed."""
