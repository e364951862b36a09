"""Ways to put a rule set into the kernel."""
