"""What is never so, by what it is about; invariants.py has the list."""
